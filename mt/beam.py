"""Beam search."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.search import Task
from mt.selection import top
from mt.tree import Candidates, Pool, TreeSearch


@dataclass(kw_only=True)
class BeamSearch(TreeSearch):
    """The most probable hypotheses of every length, side by side.

    A step keeps the `width` most probable hypotheses that go on. One ends if that is among the `width` most probable
    candidates of its step, so that a beam of 1 with alpha 0 is greedy.

    Args:
        width: hypotheses that go on.
        threshold: a hypothesis goes on only with tokens whose probability p has |max(p) − p| below this, while `width` caps
            the hypotheses; None prunes nothing. The probabilities are those of the next token: those of whole texts are soon
            all closer to each other than any limit.
        patience: a sentence is done as soon as patience · width of its hypotheses have ended (Kasai et al. 2022; 1 is first come,
            first served, as in JoeyNMT): fewer steps, and now and then a worse translation. None waits until no better one can
            come.

    Raises:
        ValueError: if an argument is out of its range.
    """

    width: int = 5
    threshold: float | None = None
    patience: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_best > self.width:
            raise ValueError(f"beam: n_best is at most the width, got n_best={self.n_best}, width={self.width}")
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"beam: the threshold is a difference of probabilities above 0, got {self.threshold}")
        if self.patience is not None and not 0 < self.patience < math.inf:
            raise ValueError(f"beam: patience is a multiple of the width above 0, or none to wait, got {self.patience}")

    @property
    def capacity(self) -> int:
        """See TreeSearch."""
        return self.width

    @property
    def enough(self) -> int | None:
        """Ended hypotheses with which a sentence is done, at least those that are returned; None for any number."""
        return None if self.patience is None else max(self.returned, math.ceil(self.patience * self.capacity))

    @property
    def remembered(self) -> int:
        """See TreeSearch."""
        return self.enough or self.returned

    def decided(self, live: Candidates, pool: Pool, divisor: Tensor) -> Tensor:
        """See TreeSearch; or enough have ended."""
        done = super().decided(live, pool, divisor)
        return done if self.enough is None else done | (pool.finished.sum(dim=1) >= self.enough)

    def candidates(self, log_prob: Tensor, total: Tensor, task: Task) -> Candidates:
        """See TreeSearch."""
        return self.expand(log_prob, total)

    def expand(self, log_prob: Tensor, total: Tensor, penalty: Tensor | None = None) -> Candidates:
        """Twice as many candidates as go on: at most one of each hypothesis ends it, so enough remain that do not.

        Args:
            penalty: `(sentences, vocab)`, counts when candidates are compared, and not in their log-probability.
        """
        # A hypothesis can take all places, and end as well.
        merit, token = top(log_prob if penalty is None else log_prob - penalty[:, None], self.capacity + 1)
        gain = merit if penalty is None else log_prob.gather(-1, token)
        if self.threshold is not None:
            pruned = log_prob.amax(dim=-1, keepdim=True).exp() - gain.exp() >= self.threshold
            merit, gain = merit.masked_fill(pruned, -torch.inf), gain.masked_fill(pruned, -torch.inf)
        merit, gain = (total[..., None] + merit).flatten(1), (total[..., None] + gain).flatten(1)
        place = merit.topk(min(2 * self.capacity, merit.shape[1])).indices
        return Candidates(place // token.shape[-1], token.flatten(1).gather(1, place), gain.gather(1, place))
