"""Sequence to sequence: what translates with the recurrent networks of lm."""
