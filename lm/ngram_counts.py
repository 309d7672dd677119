"""How often a text holds each sequence of up to n tokens: a trie in sorted arrays, counted and searched by whole arrays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor

ABSENT = -1
"""In place of a token: there is none. In place of an n-gram: it was never seen."""


class Level(NamedTuple):
    """The n-grams of one length, sorted.

    Attributes:
        keys: `(n-grams,)` the place of all but the last token among the n-grams of the length below, times the vocabulary's
            size, plus the last token. So those that begin alike stand together, and no key overflows, however long they are.
        counts: `(n-grams,)` how often each was seen.
    """

    keys: Tensor
    counts: Tensor


@dataclass(frozen=True)
class NGramCounts:
    """The n-grams of a text.

    Attributes:
        vocab_size: entries of the vocabulary.
        levels: those of one token, of two, and so on. Of one there are all of the vocabulary, seen or not, so that the place of a
            token is its id; of several there are those that were seen.
    """

    vocab_size: int
    levels: Sequence[Level]

    @classmethod
    def of(cls, text: Tensor, new: int, order: int, vocab_size: int) -> Self:
        """Count a text.

        Args:
            text: `(rows, time)` ids, ABSENT where there is no token; no n-gram reaches over such a place.
            new: only n-grams that end in so many of the last columns are counted; others are there with a count of 0 at least,
                so that those that go on from them have a place.
            order: the longest n-grams.
            vocab_size: entries of the vocabulary.
        """
        ends = torch.zeros_like(text, dtype=torch.bool)
        ends[:, text.shape[1] - new :] = True
        counts = torch.bincount(text[ends & (text >= 0)], minlength=vocab_size)
        levels, before = [Level(torch.arange(vocab_size, device=text.device), counts)], delayed(text)
        for _ in range(1, order):
            real = (before >= 0) & (text >= 0)
            keys, places = torch.unique(before[real] * vocab_size + text[real], return_inverse=True)
            levels.append(Level(keys, torch.bincount(places[ends[real]], minlength=len(keys))))
            before = delayed(torch.full_like(text, ABSENT).masked_scatter(real, places))
        return cls(vocab_size, levels)

    def __add__(self, other: "NGramCounts") -> "NGramCounts":
        """The counts of both texts."""
        tokens = self.levels[0].keys
        levels, moved = [Level(tokens, self.levels[0].counts + other.levels[0].counts)], (tokens, tokens)
        for pair in zip(self.levels[1:], other.levels[1:], strict=True):
            renamed = [
                place[level.keys // self.vocab_size] * self.vocab_size + level.keys % self.vocab_size
                for place, level in zip(moved, pair, strict=True)
            ]
            keys, places = torch.unique(torch.cat(renamed), return_inverse=True)
            counts = keys.new_zeros(len(keys)).index_add_(0, places, torch.cat([level.counts for level in pair]))
            levels.append(Level(keys, counts))
            moved = (places[: len(renamed[0])], places[len(renamed[0]) :])
        return NGramCounts(self.vocab_size, levels)

    def prefixes(self, length: int) -> Tensor:
        """The place of all but the last token of each n-gram of a length, `(n-grams,)`; of the empty one it is 0."""
        return self.levels[length - 1].keys // self.vocab_size

    def last_tokens(self, length: int) -> Tensor:
        """The last token of each n-gram of a length, `(n-grams,)`."""
        return self.levels[length - 1].keys % self.vocab_size

    def contexts(self, length: int) -> int:
        """How many n-grams there are that those of a length may begin with; the empty one is one."""
        return len(self.levels[length - 2].keys) if length > 1 else 1

    def suffixes(self) -> list[Tensor]:
        """For each length from 2, the place of all but the first token of each n-gram, `(n-grams,)`."""
        found = [self.last_tokens(2)] if len(self.levels) > 1 else []
        for length in range(3, len(self.levels) + 1):
            found.append(self.find(length - 1, found[-1][self.prefixes(length)], self.last_tokens(length)))
        return found

    def find(self, length: int, prefixes: Tensor, tokens: Tensor) -> Tensor:
        """The places of n-grams of a length from 2, by those of all but their last tokens and these tokens; ABSENT if unseen."""
        keys, wanted = self.levels[length - 1].keys, torch.add(tokens, prefixes, alpha=self.vocab_size)
        if not len(keys):
            return torch.full_like(wanted, ABSENT)
        places = torch.searchsorted(keys, wanted).clamp_(max=len(keys) - 1)
        return places.where(keys[places] == wanted, ABSENT)  # no key is negative, as what is wanted behind an ABSENT one is

    def places(self, text: Tensor) -> list[Tensor]:
        """For each length from 0, the place of the n-gram that ends at each token of a text `(rows, time)`."""
        found = [torch.zeros_like(text), text]
        for length in range(2, len(self.levels) + 1):
            found.append(self.find(length, delayed(found[-1]).where(text >= 0, ABSENT), text))
        return found

    def tokens(self, length: int, places: Tensor) -> Tensor:
        """The tokens `(n-grams, length)` of those at these places."""
        columns = []
        for k in range(length, 0, -1):
            keys = self.levels[k - 1].keys[places]
            columns.append(keys % self.vocab_size)
            places = keys // self.vocab_size
        return torch.stack(columns[::-1], dim=-1)


def delayed(places: Tensor) -> Tensor:
    """`(rows, time)`, each row one step later; nothing ends before its first token."""
    return torch.cat([torch.full_like(places[:, :1], ABSENT), places[:, :-1]], dim=1)
