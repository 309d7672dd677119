"""Windows of an array of tokens or of numbers, in the orders that language models are trained and evaluated in.

What a stream yields is a pure function of seed, epoch and position. Each rank reads its own lanes of the same global batch.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.loading import EpochLoader, checksum


class Window(NamedTuple):
    """A batch for a language model.

    Attributes:
        tokens: `(lanes, time)` ids, or the numbers of a series.
        targets: `(lanes, time)`, what follows each.
        mask: `(lanes, time)`, 0 where there is no target; None where there is one everywhere.
    """

    tokens: Tensor
    targets: Tensor
    mask: Tensor | None = None


class Place(NamedTuple):
    """Where a stream is read: its part among the processes of a run, and the seed they share.

    Attributes:
        seed: of everything drawn.
        rank: of this process.
        world_size: number of processes.
    """

    seed: int = 0
    rank: int = 0
    world_size: int = 1


ONE_PROCESS = Place()


class Stream(EpochLoader[Window]):
    """An epoch of windows.

    Args:
        tokens: the corpus, one array of ids, memory-mapped or not.
        lanes: windows in the batch of all ranks together.
        steps: tokens in a window.
        place: which of the lanes this process reads, and the seed.

    Attributes:
        contiguous: row i of a window continues row i of the one before, so that a state may be carried.

    Raises:
        ValueError: if the corpus is too short, or the ranks cannot share the lanes evenly.
    """

    contiguous = True

    def __init__(self, tokens: np.ndarray, lanes: int, steps: int, place: Place = ONE_PROCESS) -> None:
        super().__init__(place.seed)
        if lanes < 1 or steps < 1:
            raise ValueError(f"stream: lanes and steps are counts from 1, got {lanes=}, {steps=}")
        if lanes % place.world_size:
            raise ValueError(
                f"stream: {lanes} lanes cannot be shared by {place.world_size} processes: use a multiple of {place.world_size}"
            )
        self.tokens, self.lanes, self.steps, self.place = tokens, lanes, steps, place
        own = lanes // place.world_size
        self.rows = slice(place.rank * own, (place.rank + 1) * own)

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        return {"lanes": self.lanes, "steps": self.steps, "seed": self.seed, "corpus": checksum(self.tokens)}

    def read(self, starts: np.ndarray, steps: int) -> Window:
        """The window whose rows begin at `starts`."""
        block = tensor_of(self.tokens[starts[self.rows, None] + np.arange(steps + 1)])
        return Window(block[:, :-1], block[:, 1:])


class SequentialStream(Stream):
    """Sequential partitioning: the corpus cut into contiguous lanes, read side by side, window after window.

    What does not fill a window is left out: the end of each lane, which a random offset makes another part every epoch;
    without one, the end of the corpus, so that each lane begins where the one before it ends.

    Args:
        random_offset: discard up to `steps − 1` tokens at the start of each epoch, drawn anew.
    """

    def __init__(
        self, tokens: np.ndarray, lanes: int, steps: int, place: Place = ONE_PROCESS, *, random_offset: bool = True
    ) -> None:
        super().__init__(tokens, lanes, steps, place)
        self.random_offset = random_offset
        need = lanes * steps + (steps if random_offset else 1)
        if len(tokens) < need:
            raise ValueError(
                f"stream: {lanes} lanes of {steps} steps need at least {need} tokens, and the corpus has {len(tokens)}:"
                " use fewer lanes or shorter windows"
            )

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        return {**super().identity(), "random_offset": self.random_offset}

    def __len__(self) -> int:
        # Counted for the largest offset, so that every epoch has the same number of windows.
        return (len(self.tokens) - (self.steps if self.random_offset else 1)) // self.lanes // self.steps

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        offset = int(self.random().integers(self.steps)) if self.random_offset else 0
        lane_length = (len(self.tokens) - offset - 1) // self.lanes if self.random_offset else len(self) * self.steps
        lane_starts = offset + np.arange(self.lanes) * lane_length
        return lambda index: self.read(lane_starts + index * self.steps, self.steps)


class SlidingStream(Stream):
    """Windows that begin every `stride` tokens, shuffled; with the stride of a window's length, random sampling.

    Args:
        stride: tokens between the beginnings of two windows; None for `steps`, so that windows do not overlap.
        shuffle: read them in another order every epoch.
        random_offset: discard up to `stride − 1` tokens at the start of each epoch, drawn anew.
    """

    contiguous = False

    def __init__(
        self,
        tokens: np.ndarray,
        lanes: int,
        steps: int,
        place: Place = ONE_PROCESS,
        *,
        stride: int | None = None,
        shuffle: bool = True,
        random_offset: bool = True,
    ) -> None:
        super().__init__(tokens, lanes, steps, place)
        self.stride = steps if stride is None else stride
        if self.stride < 1:
            raise ValueError(f"stream: the stride is a count of tokens from 1, got {stride}")
        self.shuffle, self.random_offset = shuffle, random_offset
        offsets = self.stride - 1 if random_offset else 0
        self.count = max(0, len(tokens) - 1 - offsets - steps + self.stride) // self.stride
        if self.count < lanes:
            raise ValueError(
                f"stream: {len(tokens)} tokens make {self.count} windows of {steps} steps, too few for one batch of {lanes}:"
                " use fewer lanes or shorter windows"
            )

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        own = {"stride": self.stride, "shuffle": self.shuffle, "random_offset": self.random_offset}
        return {**super().identity(), **own}

    def __len__(self) -> int:
        return self.count // self.lanes

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        random = self.random()
        offset = int(random.integers(self.stride)) if self.random_offset else 0
        order = random.permutation(self.count) if self.shuffle else np.arange(self.count)
        return lambda index: self.read(offset + order[index * self.lanes : (index + 1) * self.lanes] * self.stride, self.steps)


class CompleteStream(Stream):
    """Sequential partitioning in which every token after the first is a target exactly once: for evaluation.

    The last window may be shorter, and the last lanes end in padding, which the mask tells.
    """

    def __init__(self, tokens: np.ndarray, lanes: int, steps: int, place: Place = ONE_PROCESS) -> None:
        super().__init__(tokens, lanes, steps, place)
        if len(tokens) < 2:
            raise ValueError(f"stream: a text of {len(tokens)} tokens has nothing to predict; at least 2 are needed")
        self.lane_length = -(-(len(tokens) - 1) // lanes)

    def __len__(self) -> int:
        return -(-self.lane_length // self.steps)

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        lane_starts = np.arange(self.lanes)[self.rows, None] * self.lane_length

        def read(index: int) -> Window:
            steps = np.arange(index * self.steps, min((index + 1) * self.steps, self.lane_length))
            positions = lane_starts + steps
            last = len(self.tokens) - 1
            mask = None if positions.max() < last else torch.from_numpy((positions < last).astype(np.float32))
            tokens, targets = self.tokens[np.minimum(positions, last)], self.tokens[np.minimum(positions + 1, last)]
            return Window(tensor_of(tokens), tensor_of(targets), mask)

        return read


def tensor_of(values: np.ndarray) -> Tensor:
    """Ids as int64, and the numbers of a series as float32."""
    return torch.from_numpy(values.astype(np.float32 if values.dtype.kind == "f" else np.int64))


StreamFactory = Callable[[np.ndarray, int, int, Place], Stream]
"""Makes a stream from tokens, lanes, steps and place."""
