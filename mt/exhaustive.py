"""Exhaustive search, for spaces small enough to look at all of."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.search import Task
from mt.tree import Candidates, TreeSearch


@dataclass(kw_only=True)
class ExhaustiveSearch(TreeSearch):
    """The best of all translations there are. They are too many for anything but an experiment.

    Args:
        limit: of the number of translations; a larger space is refused.

    Raises:
        ValueError: if the limit is not positive; when it is called, if the space is larger.
    """

    limit: int = 100_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit < 1:
            raise ValueError(f"exhaustive search: the limit is a number of translations from 1, got {self.limit}")

    @property
    def capacity(self) -> int:
        """See TreeSearch."""
        return self.limit

    def candidates(self, log_prob: Tensor, total: Tensor, task: Task) -> Candidates:
        """See TreeSearch; every token of every hypothesis.

        Raises:
            ValueError: if there are too many translations.
        """
        sentences, hypotheses, vocab = log_prob.shape
        never = {task.special.beginning, task.special.padding}
        tokens = torch.tensor([token for token in range(vocab) if token not in never], device=log_prob.device)
        words = len(tokens) - 1
        # Those with 0, 1, ... words before the end, and those that are cut.
        size = sum(words**length for length in range(task.longest + 1))
        if size > self.limit:
            raise ValueError(
                f"exhaustive search: {words} words make about 10^{math.log10(size):.0f} translations of up to {task.longest}"
                f" tokens, and the limit is {self.limit}; lower constraints.max_length, or take a beam"
            )
        parent = torch.arange(hypotheses, device=log_prob.device).repeat_interleave(len(tokens))
        return Candidates(
            parent.expand(sentences, -1),
            tokens.repeat(hypotheses).expand(sentences, -1),
            (total[..., None] + log_prob[..., tokens]).flatten(1),
        )
