"""Diverse beam search: several beams a sentence that avoid each other's words."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.beam import BeamSearch
from mt.search import SearchOutput, Task, side_by_side
from mt.step import map_state
from mt.tree import Candidates, ranked


@dataclass(kw_only=True)
class DiverseBeamSearch(BeamSearch):
    """Beams of `width / groups` hypotheses, one after another in each step (Vijayakumar et al. 2018, algorithm 1).

    A beam ranks its candidates by log P − diversity · (how often the beams before it go on with the same token at this step),
    their Hamming diversity. The count is not carried on to later steps, nor into the score; `<eos>` counts for
    nothing, so that translations may be equally long. The beams' translations are ranked together, and two may be equal.

    Args:
        groups: beams, a divisor of `width`.
        diversity: weight of the count; 0 makes all beams the same.

    Raises:
        ValueError: if an argument is out of its range.
    """

    groups: int = 5
    diversity: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups < 1 or self.width % self.groups:
            raise ValueError(f"diverse beam: groups share the width evenly, got groups={self.groups}, width={self.width}")
        if not 0 <= self.diversity < math.inf:
            raise ValueError(f"diverse beam: diversity is a number from 0, got {self.diversity}")

    @property
    def capacity(self) -> int:
        """Hypotheses of one beam that go on."""
        return self.width // self.groups

    @property
    def together(self) -> int:
        """See TreeSearch: the beams of a sentence, which look at each other."""
        return self.groups

    def run(self, task: Task) -> SearchOutput:
        """See Search."""
        output = side_by_side(super().run(task.repeat(self.groups)), self.groups)
        order = ranked(output.score, output.finished)[:, : self.n_best]
        sentences = torch.arange(task.sentences, device=order.device)[:, None]
        best: SearchOutput = map_state(lambda part: part[sentences, order], output)
        return best

    def candidates(self, log_prob: Tensor, total: Tensor, task: Task) -> Candidates:
        """See TreeSearch; the beams of a sentence stand here where sentences do there."""
        log_prob, total = (part.reshape(-1, self.groups, *part.shape[1:]) for part in (log_prob, total))
        taken = log_prob.new_zeros(len(log_prob), log_prob.shape[-1])
        beams: list[Candidates] = []
        for beam in range(self.groups):
            beams.append(self.expand(log_prob[:, beam], total[:, beam], self.diversity * taken))
            live = self.going_on(beams[-1], total.shape[-1], task)
            taken.scatter_add_(1, live.token, (~live.log_prob.isneginf()).to(taken.dtype))
        return Candidates(*(torch.stack(parts, dim=1).flatten(0, 1) for parts in zip(*beams, strict=True)))
