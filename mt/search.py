"""What every search shares: what it is told of the sentences, and what it returns. And greedy search, the plainest."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from lm.sampling import widest
from mt.constraints import Constraints
from mt.selection import top
from mt.step import SourceStep, Special, State, Step, leaves, map_state, reorder, repeat


class SearchOutput(NamedTuple):
    """Translations, the best of each sentence first.

    A place for which there is no translation is all padding: its length is 0, its log-probability and score −inf.

    Attributes:
        tokens: `(sentences, n_best, length)`, without `<bos>`, with `<eos>`, then padding.
        lengths: `(sentences, n_best)`, `<eos>` counted.
        log_prob: `(sentences, n_best)` Σ log p in nats of all tokens, those of a forced prefix and `<eos>` among them.
        score: `(sentences, n_best)`, what ranked them.
        finished: `(sentences, n_best)`; false where the maximum length cut a translation, which then has no `<eos>`.
        attention: `(sentences, n_best, length, source_time)`, 0 on padding of either side; None where the model has none.
    """

    tokens: Tensor
    lengths: Tensor
    log_prob: Tensor
    score: Tensor
    finished: Tensor
    attention: Tensor | None


class Task(NamedTuple):
    """The arguments of a search, checked, as tensors on the model's device.

    Attributes:
        max_length, source_lengths, numbers: `(sentences,)`.
        longest: the largest of max_length.
        prefixes: `(sentences, time)`, −1 behind their end.
    """

    step: Step
    state: State
    sentences: int
    special: Special
    max_length: Tensor
    longest: int
    prefixes: Tensor
    source_lengths: Tensor | None
    numbers: Tensor

    def repeat(self, count: int) -> "Task":
        """The task with each sentence `count` times in a row."""
        return self._replace(
            state=repeat(self.state, count),
            sentences=self.sentences * count,
            max_length=self.max_length.repeat_interleave(count),
            prefixes=self.prefixes.repeat_interleave(count, dim=0),
            source_lengths=repeat(self.source_lengths, count),
            numbers=self.numbers.repeat_interleave(count),
        )

    def select(self, sentences: Tensor, together: int) -> "Task":
        """The task of some sentences alone, before its next step; so many in a row are one of the step's own."""
        assert isinstance(self.step, SourceStep)
        max_length = self.max_length[sentences]
        return self._replace(
            step=self.step.select(sentences[::together] // together),
            sentences=len(sentences),
            max_length=max_length,
            longest=int(max_length.max()),
            prefixes=self.prefixes[sentences],
            source_lengths=reorder(self.source_lengths, sentences),
            numbers=self.numbers[sentences],
        )

    def output(self, tokens: Tensor, log_prob: Tensor, score: Tensor, finished: Tensor, attention: Tensor | None) -> SearchOutput:
        """Empty the places whose log-probability is −inf, and cut everything to the longest translation there is."""
        tokens = tokens.masked_fill(log_prob.isneginf()[..., None], self.special.padding)
        real = tokens != self.special.padding
        lengths = real.sum(dim=-1)
        longest = int(lengths.max())
        if attention is not None:
            attention = attention[:, :, :longest] * real[:, :, :longest, None]
        return SearchOutput(tokens[..., :longest], lengths, log_prob, score, finished & (lengths > 0), attention)


@dataclass(kw_only=True)
class Search(ABC):
    """A way to find translations.

    Args:
        constraints: what a translation may not be.
    """

    constraints: Constraints = field(default_factory=Constraints)

    @property
    def count(self) -> int:
        """Translations of a sentence at most."""
        return 1

    @torch.no_grad()
    def __call__(
        self,
        step: Step,
        state: State,
        sentences: int,
        special: Special,
        max_length: int | Sequence[int] | Tensor,
        *,
        prefixes: Sequence[Sequence[int]] | None = None,
        source_lengths: Tensor | None = None,
        numbers: Sequence[int] | Tensor | None = None,
    ) -> SearchOutput:
        """Translate a batch. What a sentence gets does not depend on the others.

        Args:
            step: the model.
            state: before the first token, its rows the sentences.
            sentences: in the batch.
            special: ids of the vocabulary.
            max_length: tokens of a translation at most, `<eos>` counted; one for all sentences, or one for each. Where the
                constraints have a smaller one, theirs counts.
            prefixes: ids that the translation of each sentence begins with, whatever the constraints say; some may be empty.
            source_lengths: `(sentences,)`, tokens that a coverage penalty wants covered.
            numbers: of the sentences in their text, which random searches key their noise by; None counts from 0.

        Raises:
            ValueError: if lengths or prefixes cannot be met, or what a penalty needs is missing.
        """
        limits = torch.as_tensor(max_length).flatten().cpu()
        if sentences < 1 or len(limits) not in (1, sentences) or limits.min() < 1:
            raise ValueError(
                f"search: it needs a sentence, and one maximum length from 1 or one for each, got {sentences=}, {max_length=}"
            )
        if self.constraints.max_length is not None:
            limits = limits.clamp(max=self.constraints.max_length)
        if limits.min() < self.constraints.min_length:
            raise ValueError(
                f"search: no translation has at least {self.constraints.min_length} and at most {limits.min()} tokens;"
                " lower min_length or raise max_length"
            )
        limits = limits.expand(sentences)
        device = next((leaf.device for leaf in leaves(state)), torch.device("cpu"))
        task = Task(
            step,
            state,
            sentences,
            special,
            limits.to(device),
            int(limits.max()),
            prefix_tensor([[]] * sentences if prefixes is None else prefixes, limits.tolist(), special).to(device),
            None if source_lengths is None else source_lengths.to(device),
            torch.as_tensor(range(sentences) if numbers is None else numbers, device=device),
        )
        return self.run(task)

    @abstractmethod
    def run(self, task: Task) -> SearchOutput:
        """Search."""


@dataclass(kw_only=True)
class GreedySearch(Search):
    """The most probable next token, again and again; the score is log P."""

    def run(self, task: Task) -> SearchOutput:
        """See Search."""
        return follow(task, self.constraints, lambda log_prob, _: top(log_prob, 1)[1].squeeze(-1))


def follow(task: Task, constraints: Constraints, choose: Callable[[Tensor, int], Tensor]) -> SearchOutput:
    """One hypothesis a sentence, which goes on with the token that is chosen for it.

    Args:
        choose: log-probabilities `(sentences, vocab)` and the position -> tokens `(sentences,)`.
    """
    state, special, device = task.state, task.special, task.max_length.device
    token = torch.full_like(task.max_length, special.beginning)
    total = torch.zeros(task.sentences, dtype=widest(device), device=device)
    stopped = torch.zeros_like(token, dtype=torch.bool)
    tokens: list[Tensor] = []
    attentions: list[Tensor] = []
    for position in range(task.longest):
        log_prob, state, attention = task.step(token, state)
        constraints.apply(log_prob[:, None], position, special, task.prefixes, lambda: torch.stack(tokens, dim=-1)[:, None])
        token = choose(log_prob, position)
        total = total + log_prob.gather(1, token[:, None]).squeeze(1).masked_fill(stopped, 0)
        token = token.masked_fill(stopped, special.padding)
        tokens.append(token)
        if attention is not None:
            attentions.append(attention)
        stopped = stopped | (token == special.end) | (task.max_length == position + 1)
        if stopped.all():
            break
    written, score = torch.stack(tokens, dim=-1)[:, None], total[:, None]
    attended = torch.stack(attentions, dim=1)[:, None] if attentions else None
    return task.output(written, score, score, (written == special.end).any(dim=-1), attended)


def side_by_side(output: SearchOutput, count: int) -> SearchOutput:
    """The output of a task that `repeat(count)` made, as translations of the sentences that were repeated."""
    sentences, n_best = len(output.tokens) // count, output.tokens.shape[1] * count
    together: SearchOutput = map_state(lambda part: part.reshape(sentences, n_best, *part.shape[2:]), output)
    return together


def prefix_tensor(prefixes: Sequence[Sequence[int]], max_length: Sequence[int], special: Special) -> Tensor:
    """`(sentences, time)`, −1 behind the end of each prefix.

    Raises:
        ValueError: if there are not as many as sentences, or one is too long, or holds what ends a text.
    """
    if len(prefixes) != len(max_length):
        raise ValueError(
            f"prefixes: {len(prefixes)} for {len(max_length)} sentences; give each one, empty where nothing is forced"
        )
    padded = torch.full((len(prefixes), max(map(len, prefixes))), -1)
    for sentence, (prefix, limit) in enumerate(zip(prefixes, max_length, strict=True)):
        if len(prefix) > limit or {special.end, special.padding} & set(prefix) or min(prefix, default=0) < 0:
            raise ValueError(
                f"prefixes: that of sentence {sentence}, {list(prefix)}, has to fit into {limit} tokens, none of them"
                f" the end ({special.end}) or padding ({special.padding})"
            )
        padded[sentence, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
    return padded
