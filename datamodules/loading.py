"""What every loader of a training run is: it can stop anywhere, be saved, and go on where it was."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import numpy as np

Batch = TypeVar("Batch")


class EpochLoader(ABC, Generic[Batch]):
    """A sized iterable that Lightning takes in place of a DataLoader, and stops, saves and resumes anywhere.

    Args:
        seed: of everything drawn; an epoch is a pure function of it and the epoch's number.
    """

    batch_sampler = None  # Lightning asks whatever has a sampler for it

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.epoch = self.position = self.start = 0

    @abstractmethod
    def __len__(self) -> int:
        """Batches in an epoch, the same in every one."""

    @abstractmethod
    def batches(self) -> Callable[[int], Batch]:
        """Draw what this epoch needs; return what reads its i-th batch."""

    def __iter__(self) -> Iterator[Batch]:
        start, self.start = self.start, 0
        read = self.batches()
        for index in range(start, len(self)):
            self.position = index + 1
            yield read(index)

    @property
    def sampler(self) -> Self:
        """Lightning announces each epoch to a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next iteration draws."""
        self.epoch = epoch

    def random(self) -> np.random.Generator:
        """The generator of this epoch."""
        return np.random.default_rng([self.seed, self.epoch])

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch have been read."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration, and only that one, start where the saved one stopped; after a whole epoch, at its start."""
        self.start = self.position = state["position"] % len(self)
