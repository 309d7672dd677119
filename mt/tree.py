"""Growing hypotheses side by side, and ranking those that have ended: the loop of beam search and its relatives."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch
from torch import Tensor

from lm.sampling import widest
from mt.ranking import Ranking
from mt.search import Search, SearchOutput, Task
from mt.step import SourceStep, reorder
from mt.trellis import Trellis, in_rows

WORTH_SELECTING = 0.75
"""Finished sentences are set aside when no more than this share of a batch goes on: doing it costs a copy of the source."""


class Candidates(NamedTuple):
    """Ways to go on, the best first, all `(sentences, count)`.

    Attributes:
        parent: the hypothesis that would go on: its place in its sentence as `candidates` gives them, its row in the step from
            then on.
        token: what it would go on with.
        log_prob: of the hypothesis with that token; −inf for what cannot be.
    """

    parent: Tensor
    token: Tensor
    log_prob: Tensor

    def first(self, count: int) -> "Candidates":
        """The best of them."""
        return Candidates(*(part[:, :count] for part in self))

    def select(self, sentences: Tensor) -> "Candidates":
        """Those of these sentences alone, in this order."""
        return Candidates(*(part[sentences] for part in self))

    def without(self, token: int, count: int) -> "Candidates":
        """The best of those that go on with another token."""
        places = (self.token == token).long().argsort(dim=1, stable=True)[:, :count]
        return Candidates(*(part.gather(1, places) for part in self))


class Pool(NamedTuple):
    """The best hypotheses that have ended, the best first, all `(sentences, size)`; the last three are those of a Trellis."""

    score: Tensor
    log_prob: Tensor
    finished: Tensor
    position: Tensor
    parent: Tensor
    token: Tensor

    @classmethod
    def empty(cls, size: int, total: Tensor) -> Self:
        """Room for hypotheses of these sentences, `(sentences, ...)`; a score of −inf marks what does not exist."""
        nothing = total.new_full((len(total), size), -torch.inf)
        zero = torch.zeros_like(nothing, dtype=torch.long)
        return cls(nothing, nothing, zero.bool(), zero - 1, zero, zero)

    @classmethod
    def of(cls, candidates: Candidates, score: Tensor, finished: Tensor, ended: Tensor, position: int) -> Self:
        """The candidates of a step, of which only those that have ended, finished or cut, have more than a score of −inf."""
        exists = ended & ~candidates.log_prob.isneginf()
        where = torch.full_like(candidates.token, position), candidates.parent, candidates.token
        return cls(score.where(exists, -torch.inf), candidates.log_prob, finished & exists, *where)

    def merge(self, other: "Pool") -> "Pool":
        """The best of both, as many as there are here; of equals those that are here, so that room stays room."""
        both = Pool(*(torch.cat(pair, dim=1) for pair in zip(self, other, strict=True)))
        order = ranked(both.score, both.finished)[:, : self.score.shape[1]]
        return Pool(*(part.gather(1, order) for part in both))

    def select(self, sentences: Tensor) -> "Pool":
        """The hypotheses of these sentences alone, in this order."""
        return Pool(*(part[sentences] for part in self))

    @classmethod
    def in_order(cls, parts: Sequence[tuple[Tensor, "Pool"]]) -> Self:
        """Those of parts of a batch, each with the numbers of its sentences, as those of the batch."""
        order = torch.cat([numbers for numbers, _ in parts]).argsort()
        return cls(*(torch.cat(pieces)[order] for pieces in zip(*(pool for _, pool in parts), strict=True)))

    def output(self, task: Task, trellis: Trellis) -> SearchOutput:
        """What the hypotheses are."""
        tokens, attended = trellis.read(self.position, self.parent, self.token)
        return task.output(tokens, self.log_prob, self.score, self.finished, attended)

    def first(self, count: int) -> "Pool":
        """The best of them."""
        return Pool(*(part[:, :count] for part in self))

    def worst(self) -> Tensor:
        """The score `(sentences,)` that a finished hypothesis has to beat; −inf while there is room."""
        return self.score[:, -1].where(self.finished[:, -1], -torch.inf)


def ranked(score: Tensor, finished: Tensor) -> Tensor:
    """Places of `(sentences, count)` translations, the best first: what is finished before what was cut, then by score."""
    order = score.argsort(dim=1, descending=True, stable=True)
    return order.gather(1, finished.gather(1, order).long().argsort(dim=1, descending=True, stable=True))


@dataclass(kw_only=True)
class TreeSearch(Search):
    """A search that grows hypotheses side by side.

    One that ends moves out to the finished, where the best are kept. A sentence is done when nothing that goes on can
    still be among the `n_best`, so that it gets what searching on up to its maximum length would give it; the others then go on
    without it. A translation cut there ranks behind all finished ones.

    Args:
        n_best: translations that are returned.
        ranking: the score of a translation.

    Raises:
        ValueError: if there is to be no translation.
    """

    n_best: int = 1
    ranking: Ranking = field(default_factory=Ranking)

    def __post_init__(self) -> None:
        if self.n_best < 1:
            raise ValueError(f"search: n_best is a count from 1, got {self.n_best}")

    @property
    def count(self) -> int:
        """See Search."""
        return self.n_best

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Hypotheses that go on at most. One ends only if it is among as many best candidates of its step."""

    @property
    def returned(self) -> int:
        """Translations of what the loop takes for a sentence."""
        return min(self.n_best, self.capacity)

    @property
    def remembered(self) -> int:
        """Hypotheses that have ended and are kept, at least those that are returned."""
        return self.returned

    @property
    def together(self) -> int:
        """How many sentences in a row are searched together, and so are done together."""
        return 1

    @abstractmethod
    def candidates(self, log_prob: Tensor, total: Tensor, task: Task) -> Candidates:
        """The best ways to go on, parents told by their places; for each hypothesis no more than one that ends it.

        Args:
            log_prob: of the next token, `(sentences, hypotheses, vocab)`.
            total: log P of the hypotheses, `(sentences, hypotheses)`.
            task: what is searched for.
        """

    def run(self, task: Task) -> SearchOutput:
        """See Search."""
        state = task.state
        divisors = torch.tensor(
            [self.ranking.divisor(length) for length in range(1, task.longest + 1)],
            dtype=widest(task.max_length.device),
            device=task.max_length.device,
        )
        # One hypothesis at first, for several would be equal and stay so; each step makes more of them, up to the width.
        total = divisors.new_zeros(task.sentences, 1)
        token = torch.full_like(total, task.special.beginning, dtype=torch.long)
        coverage: Tensor | None = None
        trellis = Trellis(task.special.padding)
        pool = Pool.empty(self.remembered, total)
        sentences = torch.arange(task.sentences, device=total.device)
        aside: list[tuple[Tensor, Pool]] = []
        for position in range(task.longest):
            flat, state, attention = task.step(token.flatten(), state)
            log_prob = flat.view(*total.shape, -1)
            self.constraints.apply(log_prob, position, task.special, task.prefixes, trellis.history)
            candidates = self.candidates(log_prob, total, task)
            candidates = candidates._replace(parent=in_rows(candidates.parent, total.shape[1]))
            if attention is not None:
                coverage = attention if coverage is None else attention + coverage

            last = task.max_length == position + 1
            pool = pool.merge(self.ended(candidates, coverage, last, divisors[position], position, task))
            live = self.going_on(candidates, total.shape[1], task)
            done = last | self.decided(live, pool, divisors[task.max_length - 1])
            live = live._replace(log_prob=live.log_prob.masked_fill(done[:, None], -torch.inf))
            going = (~done).view(-1, self.together).any(dim=1).repeat_interleave(self.together)
            kept = going.nonzero().flatten()
            if isinstance(task.step, SourceStep) and 0 < len(kept) <= WORTH_SELECTING * task.sentences:
                left = (~going).nonzero().flatten()
                aside.append((sentences[left], pool.select(left)))
                task, sentences = task.select(kept, self.together), sentences[kept]
                pool, live = pool.select(kept), live.select(kept)
            trellis.append(live.parent, live.token, attention)
            if not len(kept):
                break
            token, total = live.token, live.log_prob
            state, coverage = reorder((state, coverage), live.parent.flatten())
        best = Pool.in_order([*aside, (sentences, pool)]).first(self.returned)
        return best.output(task, trellis)

    def ended(
        self, candidates: Candidates, coverage: Tensor | None, last: Tensor, divisor: Tensor, position: int, task: Task
    ) -> Pool:
        """The best candidates of a step with their scores, of which those exist that end, or are cut because it is the last."""
        best = candidates.first(self.capacity)
        ends, score = best.token == task.special.end, best.log_prob / divisor
        if self.ranking.coverage:
            by_sentence = None if coverage is None else coverage.view(task.sentences, -1, coverage.shape[1])
            score = score + self.ranking.penalty(by_sentence, task.source_lengths).take(best.parent)
        return Pool.of(best, score, ends, ends | last[:, None], position)

    def going_on(self, candidates: Candidates, hypotheses: int, task: Task) -> Candidates:
        """The best candidates that do not end: as many as there surely are, when each hypothesis has at most one that does."""
        return candidates.without(task.special.end, min(self.capacity, candidates.token.shape[1] - hypotheses))

    def decided(self, live: Candidates, pool: Pool, divisor: Tensor) -> Tensor:
        """The sentences `(sentences,)` of which nothing that goes on can still be among the best.

        Log p is never positive, so what goes on never gets more probable; log P is negative, so the largest divisor, that of the
        maximum length, makes the best of it; a penalty on coverage only takes away, and constraints only forbid. Nothing scores
        above this bound, and an equal score comes too late.
        """
        return live.log_prob.amax(dim=1) / divisor <= pool.first(self.returned).worst()
