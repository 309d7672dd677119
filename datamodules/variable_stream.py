"""Windows of varying length: truncated BPTT that does not cut a text at the same places in every epoch."""

from collections.abc import Callable
from typing import Any

import numpy as np

from datamodules.streams import ONE_PROCESS, Place, Stream, Window

FARTHEST = 4
"""Standard deviations above the mean at which lengths are capped, so that memory is; about one length in 30,000 is."""


class VariableStream(Stream):
    """Sequential partitioning into windows of random lengths (Merity et al. 2017, §4.1).

        s = steps with the probability `full`, else steps/2
        T = max(shortest, int(N(s, deviation))), at most steps + 4·deviation

    Lengths are drawn once, until a lane is full, and every epoch takes them in an order of its own: so all epochs have the same
    number of windows, and the windows end elsewhere in each. The last length drawn is cut to what is left of the lane; where
    that is less than `shortest`, it is left out, and so is the end of the corpus that does not make a token for each lane.

    The gradient of a short window counts as much as that of a long one, unless callbacks.WindowRescale makes up for it.

    Args:
        full: probability of a window of about `steps` tokens and not half of them.
        deviation: standard deviation of lengths, in tokens.
        shortest: tokens of a window at least.

    Raises:
        ValueError: if an argument is out of range, or the corpus is too short.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        lanes: int,
        steps: int,
        place: Place = ONE_PROCESS,
        *,
        full: float = 0.95,
        deviation: float = 5.0,
        shortest: int = 5,
    ) -> None:
        super().__init__(tokens, lanes, steps, place)
        if not 0 <= full <= 1 or deviation < 0:
            raise ValueError(f"stream: full is a probability, and deviation not negative, got {full=}, {deviation=}")
        if not 1 <= shortest <= steps:
            raise ValueError(f"stream: shortest counts tokens from 1 to the {steps} of a window, got {shortest}")
        self.full, self.deviation, self.shortest = full, deviation, shortest
        self.lane_length = (len(tokens) - 1) // lanes
        if self.lane_length < shortest:
            raise ValueError(
                f"stream: {lanes} lanes of windows of at least {shortest} steps need at least {lanes * shortest + 1} tokens, and"
                f" the corpus has {len(tokens)}: use fewer lanes or shorter windows"
            )
        self.lengths = self.draw_lengths()

    def draw_lengths(self) -> np.ndarray:
        """The lengths of a lane's windows."""
        random = np.random.default_rng(self.seed)
        count = -(-self.lane_length // self.shortest)  # enough, were all of them the shortest
        means = np.where(random.random(count) < self.full, self.steps, self.steps / 2)
        longest = int(self.steps + FARTHEST * self.deviation)
        drawn = random.normal(means, self.deviation).astype(np.int64).clip(self.shortest, longest)
        begins = drawn.cumsum() - drawn
        left = self.lane_length - begins
        lengths: np.ndarray = np.minimum(drawn, left)[left >= self.shortest]
        return lengths

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        own = {"full": self.full, "deviation": self.deviation, "shortest": self.shortest}
        return {**super().identity(), **own}

    def __len__(self) -> int:
        return len(self.lengths)

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        lengths = self.random().permutation(self.lengths)
        begins = lengths.cumsum() - lengths
        lane_starts = np.arange(self.lanes) * self.lane_length
        return lambda index: self.read(lane_starts + begins[index], int(lengths[index]))
