"""Which pairs are worth training on, and what is wrong with the others."""

from typing import NamedTuple

import numpy as np


class Filtered(NamedTuple):
    """What a filter made of some pairs.

    Attributes:
        rows: numbers of the pairs that passed, rising.
        dropped: what is wrong with the others -> how many, each counted once.
    """

    rows: np.ndarray
    dropped: dict[str, int]


def filter_by_length(source: np.ndarray, target: np.ndarray, max_length: int | None, max_ratio: float | None) -> Filtered:
    """Filter pairs by the lengths of their sides.

    Args:
        source: `(pairs,)` tokens of each text, without special ones.
        target: the same of the translations.
        max_length: drop a pair with a side longer than this; None drops none.
        max_ratio: drop a pair with one side more than so many times as long as the other; None drops none.
    """
    shorter, longer = np.minimum(source, target), np.maximum(source, target)
    wrong = {"without a token on one side": shorter == 0}  # a normalization may leave nothing of a text
    if max_length is not None:
        wrong[f"longer than max_length={max_length}"] = longer > max_length
    if max_ratio is not None:
        wrong[f"of a length ratio above max_ratio={max_ratio:g}"] = longer > max_ratio * shorter
    kept, dropped = np.ones(len(source), dtype=bool), {}
    for reason, pairs in wrong.items():
        dropped[reason] = int((kept & pairs).sum())
        kept &= ~pairs
    return Filtered(np.flatnonzero(kept), {reason: count for reason, count in dropped.items() if count})
