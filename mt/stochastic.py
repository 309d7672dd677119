"""Stochastic beam search: a sample of translations without replacement."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from mt.noise import uniform
from mt.search import Search, SearchOutput, Task
from mt.selection import top
from mt.step import reorder
from mt.trellis import Trellis, in_rows


class Nodes(NamedTuple):
    """Beginnings of translations, all of one shape.

    Attributes:
        perturbed: G, the largest perturbed log-probability of the translations that begin so; −inf where there is no node.
        sampling: log q of the beginning.
        log_prob: log p of the beginning.
        token: its last.
    """

    perturbed: Tensor
    sampling: Tensor
    log_prob: Tensor
    token: Tensor

    def gather(self, places: Tensor) -> "Nodes":
        """Those at some places of the second dimension."""
        return Nodes(*(part.gather(1, places) for part in self))

    def children(self, log_prob: Tensor, noise: Tensor, count: int) -> "Nodes":
        """The `count` children with the largest G of each of these `(sentences, hypotheses)` nodes.

        Args:
            log_prob: of the next token, `(sentences, hypotheses, vocab)`.
            noise: from (0, 1), of the same shape.
        """
        wide = log_prob.to(noise.dtype)
        normaliser = wide.logsumexp(dim=-1, keepdim=True)
        sampling = self.sampling[..., None] + wide - normaliser.masked_fill(normaliser.isneginf(), 0)
        # Conditioning keeps the order of siblings: so only the largest need it.
        value, token = top(sampling + gumbel(noise), count)
        return Nodes(
            condition(value, self.perturbed[..., None]),
            sampling.gather(-1, token),
            self.log_prob[..., None] + wide.gather(-1, token),
            token,
        )

    def stay(self, padding: int, count: int) -> "Nodes":
        """As children `(sentences, hypotheses, count)` of nodes that have ended: themselves, and nothing else."""
        first = torch.arange(count, device=self.token.device) == 0
        perturbed = self.perturbed[..., None].where(first, -torch.inf)
        sampling, log_prob = (part[..., None].expand_as(perturbed) for part in (self.sampling, self.log_prob))
        return Nodes(perturbed, sampling, log_prob, torch.full_like(perturbed, padding, dtype=torch.long))


@dataclass(kw_only=True)
class StochasticBeamSearch(Search):
    """Translations drawn without replacement, in the order of the draws (Kool et al. 2019, algorithm 1).

    Each translation y has a Gumbel variable G(y) around log q(y). The `width` translations with the largest are a sample
    without replacement, and a beam finds them without looking at the others, for the largest G below a node of the tree of
    translations can be drawn before those below its children. G is the score.

    With κ the last score, the sentence's other translations are those with G(y) > κ, which had a chance of
    1 − exp(−exp(log q(y) − κ)): with q(y) over that for weights, a sum over them is an unbiased estimate of a mean under q.

    q is the model's p, normalised anew over the tokens that constraints and prefixes leave. A translation that the maximum
    length cuts is one like the others.

    Args:
        width: translations of each sentence.
        seed: of the noise, which is a function of it, the sentence's number, and the place in the tree.

    Raises:
        ValueError: if an argument is out of its range.
    """

    width: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width < 1 or self.seed < 0:
            raise ValueError(
                f"stochastic beam: the width is a count from 1 and the seed one from 0, got width={self.width}, seed={self.seed}"
            )

    @property
    def count(self) -> int:
        """See Search."""
        return self.width

    def run(self, task: Task) -> SearchOutput:
        """See Search. What has ended keeps its place in the beam, with padding for its only child."""
        state, special = task.state, task.special
        # The root's own G is drawn too. Any other would give the same sample, but not the scores that weights are made of.
        root = gumbel(uniform(self.seed, task.numbers, -1, 1))
        certain, beginning = torch.zeros_like(root), torch.full_like(root, special.beginning, dtype=torch.long)
        nodes = Nodes(root, certain, certain, beginning)
        ended = torch.zeros_like(root, dtype=torch.bool)
        trellis = Trellis(special.padding)
        for position in range(task.longest):
            shape = nodes.token.shape
            flat, state, attention = task.step(nodes.token.flatten(), state)
            log_prob = flat.view(*shape, -1)
            self.constraints.apply(log_prob, position, special, task.prefixes, trellis.history)
            noise = uniform(self.seed, task.numbers, position, log_prob[0].numel()).view_as(log_prob)
            children = nodes.children(log_prob, noise, self.width)
            count = children.token.shape[-1]
            options = zip(nodes.stay(special.padding, count), children, strict=True)
            children = Nodes(*(stays.where(ended[..., None], goes).flatten(1) for stays, goes in options))
            place = children.perturbed.topk(min(self.width, shape[1] * count)).indices
            nodes, parent = children.gather(place), place // count
            rows = in_rows(parent, shape[1])
            trellis.append(rows, nodes.token, attention)
            last = (task.max_length == position + 1)[:, None]
            ended = ended.gather(1, parent) | last | (nodes.token == special.end) | nodes.perturbed.isneginf()
            if ended.all():
                break
            state = reorder(state, rows.flatten())
        tokens, attended = trellis.read(*trellis.last())
        log_prob = nodes.log_prob.where(~nodes.perturbed.isneginf(), -torch.inf)
        return task.output(tokens, log_prob, nodes.perturbed, (tokens == special.end).any(dim=-1), attended)


def gumbel(draws: Tensor) -> Tensor:
    """Standard Gumbel variables from uniform ones."""
    return -(-draws.log()).log()


def condition(value: Tensor, largest: Tensor) -> Tensor:
    """Gumbel variables, given what the largest of them is (Kool et al. 2019, with the stable form of their appendix).

        G̃ = −log(exp(−largest) − exp(−Z) + exp(−G)),  Z = max G

    Args:
        value: G `(..., count)`, the first the largest of all there are.
        largest: `(..., 1)`.
    """
    below = value - value[..., :1]
    log_one_minus_exp = torch.where(below > -math.log(2), (-below.expm1()).log(), (-below.exp()).log1p())
    gap = largest - value + log_one_minus_exp
    conditioned = largest - gap.clamp(min=0) - (-gap.abs()).exp().log1p()
    return conditioned.masked_fill(value.isneginf(), -torch.inf)  # −inf − −inf would be nan
