"""Probabilities from counts: what is kept of a context's own counts, and what is left to the context that is a token shorter.

    P(w | c) = share(c, w) + weight(c)·P(w | c without its first token)

Below the empty context every token has 1/m, m being the size of the vocabulary. The weight of a context that was never seen is 1.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from lm.ngram_counts import NGramCounts
from lm.sampling import widest


class Interpolation(NamedTuple):
    """The probabilities of one order; the last value of each is that of all that were never seen, whose place is −1.

    Attributes:
        share: `(n-grams + 1,)` of each n-gram of its length, and 0.
        weight: `(contexts + 1,)` of the distribution after the shorter context, and 1.
    """

    share: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Smoothing(ABC):
    """How counts become probabilities that sum to one: a dataclass, which a checkpoint can describe."""

    @abstractmethod
    def orders(self, counts: NGramCounts) -> list[Interpolation]:
        """The probabilities of every order, from the shortest context up."""

    def settings(self) -> Sequence[float] | None:
        """One for each order; None where any number of orders will do."""
        return None

    def check(self, order: int) -> None:
        """Refuse a number of orders that the settings are not for.

        Raises:
            ValueError: if it is one.
        """
        settings = self.settings()
        if settings is not None and len(settings) != order:
            name = type(self).__name__
            raise ValueError(f"{name}: {list(settings)} cannot be the settings of {order} orders; give a number for each order")


@dataclass(frozen=True)
class Laplace(Smoothing):
    """Laplace smoothing towards the distribution after the shorter context (Zhang et al., Dive into Deep Learning, §9.3).

        P(x)      = (n(x) + ε₁/m) / (n + ε₁)
        P(x'|x)   = (n(x, x') + ε₂ P(x')) / (n(x) + ε₂)
        P(x''|x, x') = (n(x, x', x'') + ε₃ P(x''|x')) / (n(x, x') + ε₃)

    and so on. (The book's third line goes on with P(x''); both sum to one.) n(x) is how often x was followed by something. An ε
    of 0 is no smoothing, an infinite one leaves everything to the shorter context; ε₁ = ∞ and ε₂ = m is "add one" for bigrams.

    Args:
        epsilons: ε for each order, from the shortest context up.

    Raises:
        ValueError: if one is negative.
    """

    epsilons: Sequence[float]

    def __post_init__(self) -> None:
        if not self.epsilons or min(self.epsilons) < 0:
            raise ValueError(f"Laplace: epsilons are numbers from 0, one for each order, got {list(self.epsilons)}")

    def settings(self) -> Sequence[float]:
        """See Smoothing."""
        return self.epsilons

    def orders(self, counts: NGramCounts) -> list[Interpolation]:
        """See Smoothing."""
        found = []
        for length, (level, epsilon) in enumerate(zip(counts.levels, self.epsilons, strict=True), start=1):
            values, totals = per_context(counts, length, level.counts)
            weight = 1 / (1 + totals / epsilon) if epsilon else (totals == 0).to(totals.dtype)
            kept = ((1 - weight) / totals.clamp(min=1))[counts.prefixes(length)]
            found.append(with_unseen(values * kept, weight))
        return found


@dataclass(frozen=True)
class RelativeFrequency(Smoothing):
    """P(w | c) = n(c, w) / n(c) after the longest context that was seen: what was not seen after it is impossible."""

    def orders(self, counts: NGramCounts) -> list[Interpolation]:
        """See Smoothing."""
        return Laplace([0.0] * len(counts.levels)).orders(counts)


@dataclass(frozen=True)
class KneserNey(Smoothing):
    """Modified Kneser-Ney smoothing, interpolated (Chen & Goodman 1998, §4.1 and eq. 26).

        share(c, w) = (n(c, w) − D(n(c, w))) / Σ_v n(c, v)
        weight(c)   = (D₁ N₁(c) + D₂ N₂(c) + D₃₊ N₃₊(c)) / Σ_v n(c, v)

    N_r(c) is the number of tokens seen r times after c. Below the highest order n(c, w) is not how often the n-gram was seen, but
    the number of different tokens that it was seen after. Each order has discounts of its own, from the numbers n₁ to n₄ of
    n-grams with a count of 1 to 4: Y = n₁/(n₁ + 2n₂), D_r = r − (r + 1)·Y·n_{r+1}/n_r, and ½, 1 and 1½ where a text is so small
    that these are none, or not between 0 and r, as KenLM has it.

    Args:
        discounts: a discount for each order, from the shortest context up, in place of the three (Kneser & Ney 1995); null
            estimates them.

    Raises:
        ValueError: if one is not between 0 and 1.
    """

    discounts: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if self.discounts is not None and not all(0 <= discount <= 1 for discount in self.discounts):
            raise ValueError(f"KneserNey: discounts are numbers from 0 to 1, one for each order, got {list(self.discounts)}")

    def settings(self) -> Sequence[float] | None:
        """See Smoothing."""
        return self.discounts

    def orders(self, counts: NGramCounts) -> list[Interpolation]:
        """See Smoothing."""
        found = []
        before = [
            torch.bincount(places, minlength=len(level.keys))
            for places, level in zip(counts.suffixes(), counts.levels, strict=False)
        ]
        for length, seen in enumerate([*before, counts.levels[-1].counts], start=1):
            of_count = self.estimated(seen) if self.discounts is None else [self.discounts[length - 1]] * 3
            values, totals = per_context(counts, length, seen)
            discount = values.new_tensor([0.0, *of_count])[seen.clamp(max=3)]
            _, left = per_context(counts, length, discount)
            divided = totals.clamp(min=1)
            share = (values - discount) / divided[counts.prefixes(length)]
            found.append(with_unseen(share, torch.where(totals > 0, left / divided, 1.0)))
        return found

    def estimated(self, seen: Tensor) -> list[float]:
        """D₁, D₂ and D₃₊ of n-grams that were seen so often, `(n-grams,)`."""
        numbers = torch.bincount(seen.clamp(max=5), minlength=6)[1:5].tolist()
        if 0 in numbers:
            return [0.5, 1.0, 1.5]
        y = numbers[0] / (numbers[0] + 2 * numbers[1])
        found = [r - (r + 1) * y * more / few for r, (few, more) in enumerate(pairwise(numbers), start=1)]
        return found if all(0 <= discount <= r for r, discount in enumerate(found, start=1)) else [0.5, 1.0, 1.5]


def per_context(counts: NGramCounts, length: int, values: Tensor) -> tuple[Tensor, Tensor]:
    """Values of the n-grams of a length in the device's most precise type, and their sums over each context `(contexts,)`."""
    values = values.to(widest(values.device))
    return values, values.new_zeros(counts.contexts(length)).index_add_(0, counts.prefixes(length), values)


def with_unseen(share: Tensor, weight: Tensor) -> Interpolation:
    """The probabilities of what was seen, and those of what was not."""
    return Interpolation(torch.cat([share, share.new_zeros(1)]), torch.cat([weight, weight.new_ones(1)]))
