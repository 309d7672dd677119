"""Batches of examples of about one length, the same for any number of processes."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from datamodules.bucketing import Group, alone
from datamodules.loading import EpochLoader, checksum
from datamodules.streams import ONE_PROCESS, Place

Batch = TypeVar("Batch")
Collate = Callable[[np.ndarray, float], Batch]
"""Makes a batch from the numbers of its examples, none where a process has no part in it, and from its normalizer."""


class ExampleBatches(EpochLoader[Batch]):
    """An epoch of batches in which every example comes exactly once.

    Args:
        lengths: `(examples,)` tokens of each.
        predicted: `(examples,)` labels to predict of each; a batch's normalizer is their sum over all ranks and batches of its
            step of the optimizer.
        batch_size: examples of a batch, over all ranks together.
        collate: makes the batch.
        place: which examples this process reads: of every batch each world_size-th one. And the seed.
        pool: in training, so many batches are sorted by length together, in pools drawn anew every epoch.
        shuffle: another order every epoch; without it, the order that the examples have.
        group: which batches share a step of the optimizer.

    Raises:
        ValueError: if there is no example, or the batch size or the pool is not positive.
    """

    def __init__(
        self,
        lengths: np.ndarray,
        predicted: np.ndarray,
        batch_size: int,
        collate: Collate[Batch],
        place: Place = ONE_PROCESS,
        *,
        pool: int = 1,
        shuffle: bool = True,
        group: Group = alone,
    ) -> None:
        super().__init__(place.seed)
        if batch_size < 1 or pool < 1:
            raise ValueError(f"batches: batch_size and pool are counts from 1, got {batch_size=}, {pool=}")
        if not len(lengths):
            raise ValueError("batches: there is no example to make one of: check the source")
        self.lengths, self.predicted, self.batch_size, self.collate = lengths, predicted, batch_size, collate
        self.place, self.pool, self.shuffle, self.group = place, pool, shuffle, group

    def __len__(self) -> int:
        return -(-len(self.lengths) // self.batch_size)

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        settings = {"batch_size": self.batch_size, "pool": self.pool, "seed": self.seed}
        return {**settings, "examples": len(self.lengths), "lengths": checksum(self.lengths)}

    def batches(self) -> Callable[[int], Batch]:
        """See EpochLoader."""
        parts = self.cut(self.random()) if self.shuffle else self.in_batches(np.arange(len(self.lengths)))

        def read(index: int) -> Batch:
            group = self.group(index)
            normalizer = sum(int(self.predicted[parts[number]].sum()) for number in group)
            return self.collate(parts[index][self.place.rank :: self.place.world_size], float(normalizer))

        return read

    def cut(self, random: np.random.Generator) -> list[np.ndarray]:
        """Batches in random order, of examples in random order but for their lengths."""
        order = random.permutation(len(self.lengths))
        pools = np.split(order, np.arange(0, len(order), self.pool * self.batch_size)[1:])
        parts = [part for pool in pools for part in self.in_batches(pool[np.argsort(self.lengths[pool], kind="stable")])]
        return [parts[number] for number in random.permutation(len(parts))]

    def in_batches(self, rows: np.ndarray) -> list[np.ndarray]:
        """Examples cut into batches, the last of which may be smaller."""
        return np.split(rows, np.arange(0, len(rows), self.batch_size)[1:])
