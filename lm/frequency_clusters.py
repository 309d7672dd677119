"""A vocabulary in clusters, from frequent words to rare ones, for layers that give rare words fewer features."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

SAMPLE = 1_000_000
"""Tokens of a text that tell how often words of a cluster are seen."""


class Cluster(NamedTuple):
    """The ids from `first` to before `end`, each of which has `size` features."""

    first: int
    end: int
    size: int

    @property
    def words(self) -> int:
        """How many ids it has."""
        return self.end - self.first

    def holds(self, ids: Tensor) -> Tensor:
        """Which ids `(rows,)` are in it, `(rows,)`."""
        return (ids >= self.first) & (ids < self.end)

    def rows(self, ids: Tensor) -> Tensor:
        """Where among ids `(rows,)` those are that are in it."""
        return self.holds(ids).nonzero()[:, 0]


def frequency_clusters(vocab_size: int, width: int, cutoffs: Sequence[int], div_value: float) -> list[Cluster]:
    """The clusters between cutoffs; the words of cluster i, from 0, have width / div_value^i features, rounded down.

    Args:
        vocab_size: number of ids, which fall in frequency.
        width: features of the words of the first cluster.
        cutoffs: the first id of each cluster but the first.
        div_value: how many times fewer features each next cluster has.

    Raises:
        ValueError: if a cluster would have no word, or its words no feature.
    """
    bounds = [0, *cutoffs, vocab_size]
    if len(bounds) < 3 or any(end <= first for first, end in pairwise(bounds)):
        raise ValueError(
            f"cutoffs: {list(cutoffs)} do not divide {vocab_size} ids into clusters: give at least one, in rising order, from 1"
            f" to {vocab_size - 1}, such as [{max(1, vocab_size // 10)}]"
        )
    if div_value < 1:
        raise ValueError(f"div_value: {div_value} would give rare words more features than frequent ones: set it to 1 or more")
    sizes = [int(width / div_value**i) for i in range(len(bounds) - 1)]
    if not sizes[-1]:
        raise ValueError(
            f"div_value: {width} features divided by {div_value} {len(cutoffs)} times leave the rarest words none: set fewer"
            " cutoffs, a smaller div_value, or a larger width"
        )
    return [Cluster(*parts) for parts in zip(bounds, bounds[1:], sizes, strict=False)]


def check_order_of_frequency(module: nn.Module, text: np.ndarray) -> None:
    """Refuse a vocabulary whose ids do not fall in frequency, where a part of a model has clusters and says so by `cutoffs`.

    Args:
        module: the model.
        text: ids of its training text, of which the beginning is read.

    Raises:
        ValueError: if the words of a cluster are seen more often, on average, than those of the cluster before.
    """
    for part in module.modules():
        cutoffs = getattr(part, "cutoffs", None)
        if cutoffs is None or not len(text):
            continue
        bounds = [0, *cutoffs, part.vocab_size]
        seen = np.histogram(text[:SAMPLE], bounds)[0] / np.diff(bounds)
        for i, (before, after) in enumerate(pairwise(seen)):
            if after > before:
                raise ValueError(
                    f"{type(part).__name__}: its ids have to fall in frequency, and a word from id {cutoffs[i]} on is seen"
                    f" {after / before if before else np.inf:.1f} times as often as one before it: use a tokenizer that sorts its"
                    " words, such as datamodules.recipes.Words, other cutoffs, or a layer without clusters"
                )
