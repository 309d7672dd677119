"""Translations drawn at random, one token after another."""

from dataclasses import dataclass, field

from torch import Tensor

from lm.sampling import Sampling
from mt.noise import uniform
from mt.search import Search, SearchOutput, Task, follow, side_by_side


@dataclass(kw_only=True)
class SamplingSearch(Search):
    """Translations drawn from the model, each for itself, so that two of a sentence may be equal.

    They come in the order of the draws, and their score is log P. A draw is a function of the seed, the sentence's number and
    the position.

    Args:
        sampling: temperature, top-k, top-p and seed.
        samples: translations of each sentence.

    Raises:
        ValueError: if there is to be no translation.
    """

    sampling: Sampling = field(default_factory=Sampling)
    samples: int = 1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"sampling: samples is a count from 1, got {self.samples}")

    @property
    def count(self) -> int:
        """See Search."""
        return self.samples

    def run(self, task: Task) -> SearchOutput:
        """See Search."""

        def choose(log_prob: Tensor, position: int) -> Tensor:
            draws = uniform(self.sampling.seed, task.numbers, position, self.samples)
            dropped = log_prob.isneginf().all(dim=-1, keepdim=True)  # has no distribution, and needs no token
            return self.sampling.choose(log_prob.masked_fill(dropped, 0), draws.flatten())

        return side_by_side(follow(task.repeat(self.samples), self.constraints, choose), self.samples)
