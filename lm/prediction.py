"""What a model predicts, in rows one can read."""

from typing import NamedTuple


class Prediction(NamedTuple):
    """Predictions of a batch beside what was true.

    Attributes:
        columns: the names of the columns, the same for every batch of a run.
        rows: one for each thing that was predicted: text, as it is to be read.
    """

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
