"""What a person runs: `python -m experiments.run`, and the commands beside it. Imports nothing, so that a listing is instant."""
