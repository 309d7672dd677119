"""The seam between models and decoding: one step, which reads a token of every row and predicts the next.

Decoding knows nothing of encoders and decoders. Rows are sentences times hypotheses, row r belongs to sentence
r // hypotheses, and there may be more hypotheses from one step to the next. The source lives inside the step, a row of it a
sentence; only the state follows the hypotheses. A `SourceStep` can be had for some of its sentences alone, so that a search
sets those aside that it is done with.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from datamodules.tokenizers import Tokenizer

State = Any
"""Tensors whose first dimension is the rows, or None, in tuples and NamedTuples nested in any way."""


class StepOutput(NamedTuple):
    """What a model says of the next token.

    Attributes:
        log_prob: `(rows, vocab)`, normalised; it is the search's from here on, which writes −inf into it.
        state: after the token that was read.
        attention: `(rows, source_time)`, 0 on padding; None where the model has none.
    """

    log_prob: Tensor
    state: State
    attention: Tensor | None = None


Step = Callable[[Tensor, State], StepOutput]
"""Tokens `(rows,)` and the state before them -> the next."""


@dataclass(frozen=True)
class Special:
    """The ids of a vocabulary that mean something to a search.

    Args:
        beginning: what the model reads first; it is never chosen.
        end: closes a translation.
        padding: follows the end; it is never chosen.
        unknown: stands for a word that the vocabulary lacks; None where nothing can be unknown.

    Raises:
        ValueError: if the first three are not three ids.
    """

    beginning: int
    end: int
    padding: int
    unknown: int | None = None

    def __post_init__(self) -> None:
        if len({self.beginning, self.end, self.padding}) < 3:
            raise ValueError(f"search: beginning, end and padding need an id each, got {self}")

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Self:
        """Those of a tokenizer. Raises ValueError if it lacks one that a search needs."""
        ids = {name: getattr(tokenizer, name) for name in ("beginning", "end", "padding")}
        if missing := [name for name, i in ids.items() if i is None]:
            raise ValueError(f"search: the tokenizer has no token for {', '.join(missing)}; reserve '<bos>', '<eos>' and '<pad>'")
        return cls(**ids, unknown=tokenizer.unknown)


def map_state(change: Callable[[Tensor], Tensor], state: State) -> State:
    """The state with every tensor of it changed."""
    if state is None or isinstance(state, Tensor):
        return None if state is None else change(state)
    parts = [map_state(change, part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def repeat(state: State, count: int) -> State:
    """The state with each row of it `count` times in a row."""
    return map_state(lambda leaf: leaf.repeat_interleave(count, dim=0), state)


def reorder(state: State, rows: Tensor) -> State:
    """The state whose row i is row `rows[i]` of this one."""
    return map_state(lambda leaf: leaf.index_select(0, rows), state)


def leaves(state: State) -> Iterator[Tensor]:
    """Every tensor of a state."""
    if isinstance(state, Tensor):
        yield state
    elif state is not None:
        for part in state:
            yield from leaves(part)


@dataclass(frozen=True)
class SourceStep:
    """A step, and the source that it looks at.

    Args:
        source: tensors whose first dimension is the sentences, nested as those of a state.
        look: tokens `(rows,)`, the state before them and the source -> the next.
    """

    source: State
    look: Callable[[Tensor, State, State], StepOutput]

    def __call__(self, tokens: Tensor, state: State) -> StepOutput:
        """As a Step."""
        return self.look(tokens, state, self.source)

    def select(self, sentences: Tensor) -> "SourceStep":
        """The step for these sentences alone, in this order."""
        return SourceStep(reorder(self.source, sentences), self.look)


def ensemble(steps: Sequence[Step]) -> Step:
    """Several models as one: the mean of their probabilities and of the attentions of those that have one.

    Args:
        steps: of models that share one target vocabulary and read the same source. The state of the ensemble is the tuple of
            theirs.

    Raises:
        ValueError: if there is no step; when it is called, if the vocabularies differ in size.
    """
    if not steps:
        raise ValueError("ensemble: it has no member; give the step of at least one model")
    members = [step for step in steps if isinstance(step, SourceStep)]
    if len(members) < len(steps):
        return lambda tokens, state: mean([step(tokens, its) for step, its in zip(steps, state, strict=True)])

    def look(tokens: Tensor, state: State, source: State) -> StepOutput:
        return mean([member.look(tokens, *its) for member, *its in zip(members, state, source, strict=True)])

    return SourceStep(tuple(member.source for member in members), look)


def mean(outputs: Sequence[StepOutput]) -> StepOutput:
    """What the members of an ensemble say together."""
    sizes = [output.log_prob.shape[-1] for output in outputs]
    if len(set(sizes)) > 1:
        raise ValueError(f"ensemble: its members share one vocabulary, and theirs have {sizes} entries")
    log_prob = torch.stack([output.log_prob for output in outputs]).logsumexp(dim=0) - math.log(len(outputs))
    attentions = [output.attention for output in outputs if output.attention is not None]
    attention = torch.stack(attentions).mean(dim=0) if attentions else None
    return StepOutput(log_prob, tuple(output.state for output in outputs), attention)
