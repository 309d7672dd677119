"""Markov chains: what follows a token in k steps, what stood before it, and the most likely way from one to another."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from lm.ngram import NGramModel


@dataclass(frozen=True)
class MarkovChain:
    """A first-order Markov chain over a vocabulary of m tokens, whose matrix is never written out.

        P(j | i) = S_ij + w_i p_j

    S holds the pairs that were seen; everything else is what a smoothing leaves to the distribution p of single tokens. So a step
    takes time in the number of pairs and not in m².

    Attributes:
        first, second: `(pairs,)` i and j of each pair.
        share: `(pairs,)` S_ij.
        weight: `(m,)` w.
        single: `(m,)` p.
        prior: `(m,)` how often each token occurs, as a share.
    """

    first: Tensor
    second: Tensor
    share: Tensor
    weight: Tensor
    single: Tensor
    prior: Tensor

    @classmethod
    def of(cls, model: NGramModel) -> Self:
        """The chain of a bigram model.

        Raises:
            ValueError: if it is a model of another order, or has counted nothing.
        """
        if model.order != 2:
            raise ValueError(
                f"Markov chain: its model has an order of 2, and this one of {model.order}; train with model.order 2"
            )
        counts = model.counts
        if not counts.levels[0].counts.sum():
            raise ValueError("Markov chain: its model has counted nothing; train it first")
        single, pairs = model.single(), model.interpolations[1]
        prior = counts.levels[0].counts / counts.levels[0].counts.sum().to(single.dtype)
        return cls(counts.prefixes(2), counts.last_tokens(2), pairs.share[:-1], pairs.weight[:-1], single, prior)

    def forward(self, distribution: Tensor) -> Tensor:
        """Σ_i P(j | i) d_i for each j: a distribution `(m,)` one step later."""
        seen = torch.zeros_like(distribution).index_add_(0, self.second, distribution[self.first] * self.share)
        return seen + (distribution @ self.weight) * self.single

    def backward(self, values: Tensor) -> Tensor:
        """Σ_j P(j | i) v_j for each i: what values `(m,)` are expected to be one step earlier."""
        seen = torch.zeros_like(values).index_add_(0, self.first, values[self.second] * self.share)
        return seen + self.weight * (self.single @ values)

    def after(self, token: int, steps: int) -> Tensor:
        """P(x_{t+k} | x_t) `(m,)`, by dynamic programming over the tokens in between."""
        distribution = self.only(token, steps)
        for _ in range(steps):
            distribution = self.forward(distribution)
        return distribution

    def before(self, token: int, steps: int) -> Tensor:
        """P(x_t | x_{t+k}) ∝ P(x_{t+k} | x_t) P(x_t), `(m,)`: the reverse conditional.

        Raises:
            ValueError: if the token never occurs that long after another.
        """
        likelihood = self.only(token, steps)
        for _ in range(steps):
            likelihood = self.backward(likelihood)
        joint = likelihood * self.prior
        if not joint.sum() > 0:
            raise ValueError(f"Markov chain: token {token} cannot follow {steps} steps after another; smooth the model")
        return joint / joint.sum()

    def only(self, token: int, steps: int) -> Tensor:
        """1 at a token and 0 elsewhere, `(m,)`. Raises ValueError for a negative number of steps."""
        if steps < 0:
            raise ValueError(f"Markov chain: steps are a count from 0, got {steps}")
        alone = torch.zeros_like(self.single)
        alone[token] = 1.0
        return alone

    def most_likely(self, first: int, last: int, length: int) -> tuple[list[int], float]:
        """The most likely sequence of a length that begins and ends with given tokens, and log P of it after the first (Viterbi).

        The best predecessor of j is one of the pairs (i, j), or of all tokens that with the highest v_i w_i.

        Raises:
            ValueError: if the length has no room for both ends, or no such sequence is possible.
        """
        if length < 2:
            raise ValueError(f"Markov chain: a sequence between two ends has at least 2 tokens, got a length of {length}")
        pair = (self.share + self.weight[self.first] * self.single[self.second]).log()
        value, pointers = self.only(first, 0).log(), []
        for _ in range(length - 1):
            through_pair = value[self.first] + pair
            seen = torch.full_like(value, -torch.inf).scatter_reduce(0, self.second, through_pair, "amax")
            hit = through_pair == seen[self.second]
            seen_from = self.first.new_zeros(len(value)).scatter_reduce(0, self.second[hit], self.first[hit], "amax")
            free, anyone = (value + self.weight.log()).max(dim=0)
            unseen = free + self.single.log()
            pointers.append(torch.where(unseen > seen, anyone, seen_from))
            value = torch.maximum(seen, unseen)
        log_prob = float(value[last])
        if math.isinf(log_prob):
            raise ValueError(
                f"Markov chain: no sequence of {length} tokens leads there; smooth the model, or take another length"
            )
        found = [last]
        for pointer in reversed(pointers):
            found.append(int(pointer[found[-1]]))
        return found[::-1], log_prob
