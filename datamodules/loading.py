"""What every loader of a training run is: it can stop anywhere, be saved, and go on where it was."""

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar

import numpy as np
from lightning import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn

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

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the batches of every epoch, as plain data: a position means nothing where it is something else."""

    def state_dict(self) -> dict[str, Any]:
        """How many batches of the epoch have been read, and of what epochs."""
        return {"position": self.position, "identity": self.identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration, and only that one, start where the saved one stopped; after a whole epoch, at its start.

        Raises:
            ValueError: if the state is that of other data.
        """
        own, saved = self.identity(), state.get("identity", {})
        for name, value in saved.items():
            if own.get(name) != value:
                raise ValueError(
                    f"resume: the checkpoint stopped in training data with {name}={value}, and here it is {own.get(name)}: resume"
                    " with the data and settings of then, or begin a new run with its weights (callbacks.StartFrom)"
                )
        self.start = self.position = state["position"] % len(self)


class EpochData(LightningDataModule, ABC):
    """A data module whose training goes on in the middle of an epoch.

    Lightning restores loaders by itself, but not those that a learning-rate schedule has made it count before.
    """

    @abstractmethod
    def train_dataloader(self) -> EpochLoader[Any]:
        """The batches of training; one object for the whole run."""

    def accumulated(self, index: int) -> range:
        """The training batches that share a step of the optimizer with one; the last group may have fewer."""
        if not self.trainer:
            return range(index, index + 1)
        size = self.trainer.accumulate_grad_batches
        start = index - index % size
        return range(start, int(min(start + size, self.trainer.num_training_batches)))

    def state_dict(self) -> dict[str, Any]:
        """Where training is."""
        fitting = self.trainer and self.trainer.state.fn == TrainerFn.FITTING  # its validations are a part of it
        return {"training": self.train_dataloader().state_dict()} if fitting else {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on there, where this is training.

        Raises:
            ValueError: if the checkpoint was written in a training on other data.
        """
        if self.trainer and self.trainer.training:
            self.train_dataloader().load_state_dict(state_dict["training"])


def checksum(values: np.ndarray, sample: int = 128) -> int:
    """A number that tells arrays apart by their length and a sample, spread evenly: of a memory-mapped one little is read."""
    places = np.linspace(0, len(values) - 1, min(sample, len(values))).astype(int)
    kind = np.float64 if values.dtype.kind == "f" else np.int64
    return zlib.crc32(np.ascontiguousarray(values[places], dtype=kind).tobytes(), len(values) & 0xFFFFFFFF)
