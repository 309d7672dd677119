"""Batches of pairs of about one length, the same for any number of processes.

Pairs are sorted by target length and then by source length, pairs of equal lengths in random order; the sorted list is cut into
batches, and these are shuffled. The lengths in the list are those of every epoch, so the cuts are too, by tokens as by sentences,
and an epoch always has the number of batches that Lightning fixed at the first. Multi30k in batches of 64 is padded by 5% on the
source side and less than 1% on the target side; without sorting, by 90% and 98%.

Sorted only within pools of a few batches, which are drawn anew every epoch, batches have mixed lengths: more padding, and, where
short runs with batches of 64 sentences were compared, a better model after as many epochs.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.loading import EpochLoader, checksum
from datamodules.sides import Side
from datamodules.streams import ONE_PROCESS, Place

BatchUnit = Literal["sentences", "tokens"]
Group = Callable[[int], range]
"""The number of a batch -> the numbers of those whose gradients make one step of the optimizer together with its own."""


class TranslationBatch(NamedTuple):
    """A batch for a translation model, or one rank's rows of it.

    The loss whose gradients are those of one big batch is Σ nll / normalizer · world_size · accumulate_grad_batches, with Σ over
    this rank's tokens: DDP averages gradients over ranks, and Lightning divides the loss by accumulate_grad_batches, also in a
    last group of fewer batches.

    A rank that has no row of a batch gets one with nothing to predict: source `<eos>`, target `<bos> <pad>` of length 1, and −1
    for its number.

    Attributes:
        source: `(batch, source_time)` ids of a text and `<eos>`, then padding.
        source_lengths: `(batch,)` tokens of each row, `<eos>` included; 1 or more.
        target: `(batch, target_time)` ids of `<bos>`, a text and `<eos>`, then padding.
        target_lengths: `(batch,)` tokens of each row, both included: `target[i, 1 : target_lengths[i]]` are to be predicted.
        indices: `(batch,)` numbers of the pairs in their split.
        normalizer: scalar float, tokens to predict in the rows of all ranks in all batches of this step of the optimizer.
    """

    source: Tensor
    source_lengths: Tensor
    target: Tensor
    target_lengths: Tensor
    indices: Tensor
    normalizer: Tensor


def alone(index: int) -> range:
    """A step of the optimizer after every batch."""
    return range(index, index + 1)


class BucketedBatches(EpochLoader[TranslationBatch]):
    """An epoch of batches in which every pair comes exactly once.

    Args:
        source: rows of the source side.
        target: rows of the target side.
        rows: `(pairs,)` numbers of the pairs to read.
        batch_size: sentences of a batch, or tokens of its longer side with `<eos>` and padding, over all ranks together; a pair
            that alone has more tokens gets a batch to itself.
        unit: what `batch_size` counts.
        place: which rows this process reads: of every batch each world_size-th one. And the seed.
        pool: how many batches are sorted together; None for all. Batches of a smaller pool, if counted by tokens, have as many
            as each other, `batch_size` on average, without padding.
        shuffle: another order every epoch; without it, from short to long.
        group: which batches share a step of the optimizer.

    Raises:
        ValueError: if there is no pair, or the batch size or the pool is not positive.
    """

    def __init__(
        self,
        source: Side,
        target: Side,
        rows: np.ndarray,
        batch_size: int,
        unit: BatchUnit = "sentences",
        place: Place = ONE_PROCESS,
        *,
        pool: int | None = None,
        shuffle: bool = True,
        group: Group = alone,
    ) -> None:
        super().__init__(place.seed)
        if batch_size < 1:
            raise ValueError(f"batches: batch_size is a count of {unit} from 1, got {batch_size}")
        if pool is not None and pool < 1:
            raise ValueError(f"batches: a pool is a count of batches from 1, or null for all, got {pool}")
        if not len(rows):
            raise ValueError("batches: there is no pair to make one of: check the source and the filters")
        self.source, self.target, self.rows = source, target, rows
        self.batch_size, self.unit, self.pool = batch_size, unit, pool
        self.place, self.shuffle, self.group = place, shuffle, group
        source_lengths, predicted = source.lengths[rows], target.lengths[rows] - 1
        self.key = predicted * (source_lengths.max() + 1) + source_lengths
        self.sizes = np.ones(len(rows), dtype=int) if unit == "sentences" else np.maximum(source_lengths, predicted)
        if unit == "sentences" or pool is not None:
            self.count = min(len(rows), -(-int(self.sizes.sum()) // batch_size))
        else:
            self.count = len(starts_by_tokens(self.sizes[np.argsort(self.key)], batch_size))

    def __len__(self) -> int:
        return self.count

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        batch = f"{self.batch_size} {self.unit}"
        return {"batch": batch, "pool": self.pool, "seed": self.seed, "pairs": len(self.rows), "lengths": checksum(self.key)}

    def batches(self) -> Callable[[int], TranslationBatch]:
        """See EpochLoader."""
        random = self.random()
        order = random.permutation(len(self.rows)) if self.shuffle else np.arange(len(self.rows))
        parts = self.cut(order)
        numbers = random.permutation(len(parts)) if self.shuffle else np.arange(len(parts))
        parts = [self.rows[parts[number]] for number in numbers]
        tokens = [int((self.target.lengths[part] - 1).sum()) for part in parts]

        def read(index: int) -> TranslationBatch:
            group = self.group(index)
            return self.collate(parts[index], float(sum(tokens[group.start : group.stop])))

        return read

    def cut(self, order: np.ndarray) -> list[np.ndarray]:
        """The batches of pairs that come in some order: pools of it, each sorted by length and cut."""
        pool = self.pool or self.count
        bounds = self.starts(self.sizes[order], self.count)[pool::pool] if self.pool else np.arange(0)
        found: list[np.ndarray] = []
        for rows in np.split(order, bounds):
            by_length = rows[np.argsort(self.key[rows], kind="stable")]
            count = min(pool, self.count - len(found))
            found += np.split(by_length, self.starts(self.sizes[by_length], count)[1:])
        return found

    def starts(self, sizes: np.ndarray, count: int) -> np.ndarray:
        """Where batches begin in pairs of these sizes, which make so many."""
        if self.unit == "sentences":
            return np.arange(0, len(sizes), self.batch_size)
        return starts_by_tokens(sizes, self.batch_size) if self.pool is None else starts_of_equals(sizes, count)

    def collate(self, rows: np.ndarray, normalizer: float) -> TranslationBatch:
        """This process's part of a batch."""
        own = rows[self.place.rank :: self.place.world_size]
        source, target = (side.batch(own) if len(own) else side.blank() for side in (self.source, self.target))
        indices = own if len(own) else np.array([-1])
        return TranslationBatch(*source, *target, torch.from_numpy(indices), torch.tensor(normalizer))


def starts_by_tokens(sizes: np.ndarray, budget: int) -> np.ndarray:
    """Where batches begin in a list of sizes, so that rows times the largest is within the budget, and as large as can be."""
    starts = [0]
    while (start := starts[-1]) < len(sizes):
        window = sizes[start : start + max(1, budget // int(sizes[start]))]
        padded = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        starts.append(start + max(1, int(np.searchsorted(padded, budget, side="right"))))
    return np.array(starts[:-1])


def starts_of_equals(sizes: np.ndarray, count: int) -> np.ndarray:
    """Where batches begin in a list of sizes that is cut into so many of about the same sum; each has one at least."""
    numbers = np.arange(count)
    before = np.concatenate([[0], np.cumsum(sizes)])
    nearest = np.searchsorted((before[1:] + before[:-1]) / 2, before[-1] * numbers / count)
    return np.minimum(np.maximum.accumulate(nearest - numbers) + numbers, len(sizes) - count + numbers)
