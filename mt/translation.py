"""Texts in, translations out: one model or an ensemble, a search, and what a person wants to know of the result."""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from datamodules.tokenizers import Tokenizer
from mt.search import Search, SearchOutput
from mt.step import Special, State, Step, ensemble
from mt.unknown import replace_unknown


class Translation(NamedTuple):
    """One translation of a text.

    Attributes:
        text: decoded, without the token that ends it; empty where a search found no translation.
        tokens: what was chosen, `<eos>` among them if it is finished.
        source_tokens: what was read, `<eos>` among them.
        score: what ranked it among the others.
        log_prob: Σ log p of its tokens, in nats.
        attention: `(tokens, source_tokens)`; None where the model has none.
        finished: false where the maximum length cut it, or a search found none, whose score and log-probability are −inf.
    """

    text: str
    tokens: list[str]
    source_tokens: list[str]
    score: float
    log_prob: float
    attention: Tensor | None
    finished: bool


NOTHING = Translation("", [], [], 0.0, 0.0, None, True)
"""The translation of an empty text."""
NONE_FOUND = Translation("", [], [], -math.inf, -math.inf, None, False)
"""What stands where a search found no translation, so that each text has one."""


class Translator(Protocol):
    """What translates: a model with a tokenizer for each side."""

    source_tokenizer: Tokenizer | None
    target_tokenizer: Tokenizer | None

    @property
    def device(self) -> torch.device:
        """Where its weights are."""

    def evaluating(self) -> AbstractContextManager[None]:
        """Evaluation mode for a while."""

    def begin(self, tokens: Tensor, lengths: Tensor) -> tuple[Step, State]:
        """Read source tokens `(batch, source_time)` with lengths `(batch,)` -> what a search goes on with."""


def search_batch(
    models: Sequence[Translator],
    tokens: Tensor,
    lengths: Tensor,
    search: Search,
    numbers: Sequence[int] | None = None,
    prefixes: Sequence[Sequence[int]] | None = None,
) -> SearchOutput:
    """Translations of a batch of source tokens by one model or several.

    Args:
        models: they share both vocabularies.
        tokens: `(batch, source_time)`.
        lengths: `(batch,)`, `<eos>` counted. A translation has twice as many tokens behind its prefix at most, and ten, unless
            the search's constraints ask for more or allow less.
        search: how translations are found.
        numbers: of the sentences in their text, for searches that draw at random.
        prefixes: ids that each translation begins with.
    """
    steps, states = zip(*(model.begin(tokens, lengths) for model in models), strict=True)
    special = Special.of(tokenizers_of(models)[1])
    step, state = (steps[0], states[0]) if len(models) == 1 else (ensemble(steps), states)
    limits = lengths * 2 + 10
    if prefixes is not None:
        limits = limits + torch.tensor([len(prefix) for prefix in prefixes], device=limits.device)
    limits = limits.clamp(min=search.constraints.min_length)
    return search(step, state, len(tokens), special, limits, prefixes=prefixes, source_lengths=lengths, numbers=numbers)


@torch.no_grad()
def translate(
    models: Sequence[Translator],
    texts: Sequence[str],
    search: Search,
    numbers: Sequence[int] | None = None,
    *,
    prefixes: str | Sequence[str] = "",
    longest: int | None = None,
    copy_unknown: bool = False,
) -> list[list[Translation]]:
    """Translate texts as one batch.

    Args:
        models: one, or an ensemble.
        texts: an empty one has an empty translation.
        search: how translations are found.
        numbers: of the texts among all there are, for searches that draw at random; None counts from 0.
        prefixes: what each translation begins with, whatever the model says; one for all texts, or one for each.
        longest: tokens of a text that are read; None reads all.
        copy_unknown: write, in place of an unknown word, the source word that the model looked at most.

    Returns:
        of each text its translations, at least one, the best first.

    Raises:
        ValueError: if there are not as many prefixes as texts, or unknown words cannot be copied for want of attention.
    """
    source_tokenizer, target_tokenizer = tokenizers_of(models)
    begun = [prefixes] * len(texts) if isinstance(prefixes, str) else prefixes
    if len(begun) != len(texts):
        raise ValueError(f"prefixes: {len(begun)} for {len(texts)} texts; give one for each, or one string for all of them")
    end = Special.of(source_tokenizer).end
    rows = [[*source_tokenizer.encode(text)[:longest], end] for text in texts]
    full = [number for number, row in enumerate(rows) if len(row) > 1]
    translations = [[NOTHING] for _ in texts]
    if not full:
        return translations
    tokens, lengths = padded([rows[number] for number in full], models[0].device)
    with ExitStack() as stack:
        for model in models:
            stack.enter_context(model.evaluating())
        forced = [target_tokenizer.encode(begun[number]) for number in full]
        found = search_batch(models, tokens, lengths, search, [numbers[number] if numbers else number for number in full], forced)
    if copy_unknown and found.attention is None:
        raise ValueError("copy_unknown: this model has no attention that tells which word to copy; leave copy_unknown out")
    for row, number in enumerate(full):
        names = source_tokenizer.tokens(rows[number])
        pieces = stretches(source_tokenizer, texts[number])[:longest] if copy_unknown else None
        first = stretches(target_tokenizer, begun[number])
        translations[number] = list(of_row(found, row, names, target_tokenizer, pieces, first)) or [
            NONE_FOUND._replace(source_tokens=names)
        ]
    return translations


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids as `(rows, time)`, with any id behind their ends, and their lengths `(rows,)`."""
    tokens = pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    return tokens.to(device), torch.tensor([len(row) for row in rows], device=device)


def stretches(tokenizer: Tokenizer, text: str) -> list[str]:
    """The stretch of a text that each of its tokens stands for, without the space that some tokens begin with."""
    return [piece.strip() or piece for piece in tokenizer.pieces(text)]


def of_row(
    found: SearchOutput,
    row: int,
    source: list[str],
    tokenizer: Tokenizer,
    pieces: Sequence[str] | None = None,
    prefix: Sequence[str] = (),
) -> Iterator[Translation]:
    """The translations of one sentence of a search.

    Args:
        found: of a batch.
        row: of the sentence in it.
        source: its tokens.
        tokenizer: of the target.
        pieces: the stretch of the source that each of its tokens stands for, to be copied for unknown words; None copies none.
        prefix: the stretch of the forced prefix that each of its tokens stands for, written where that token is unknown.
    """
    for place, length in enumerate(found.lengths[row].tolist()):
        if length == 0:
            continue
        ids = found.tokens[row, place, :length].cpu()
        attention = None if found.attention is None else found.attention[row, place, :length, : len(source)].cpu()
        words = tokenizer.tokens(ids.tolist())
        if pieces and attention is not None and tokenizer.unknown is not None:
            words = replace_unknown(ids, words, attention, pieces, tokenizer.unknown)
        for position, piece in enumerate(prefix):
            if ids[position] == tokenizer.unknown:
                words[position] = piece
        yield Translation(
            readable(ids.tolist(), words, tokenizer),
            words,
            source,
            float(found.score[row, place]),
            float(found.log_prob[row, place]),
            attention,
            bool(found.finished[row, place]),
        )


def readable(ids: Sequence[int], words: Sequence[str], tokenizer: Tokenizer) -> str:
    """Ids as text, with the words in their places where they are unknown, and without what ends them."""
    kept = [(token, word) for token, word in zip(ids, words, strict=True) if token != tokenizer.end]
    return tokenizer.decode([token for token, _ in kept], [word for _, word in kept])


def tokenizers_of(models: Sequence[Translator]) -> tuple[Tokenizer, Tokenizer]:
    """Those of the source and of the target, which all models share.

    Raises:
        ValueError: if a model has none, or members of an ensemble have different ones.
    """
    found: list[tuple[Tokenizer, Tokenizer]] = []
    for model in models:
        if model.source_tokenizer is None or model.target_tokenizer is None:
            raise ValueError("tokenizer: this model was trained without; set model.source_tokenizer and model.target_tokenizer")
        found.append((model.source_tokenizer, model.target_tokenizer))
    for side in (0, 1):
        if any(pair[side].to_json() != found[0][side].to_json() for pair in found[1:]):
            raise ValueError("ensemble: its models have different vocabularies; train all of them on the same data")
    return found[0]
