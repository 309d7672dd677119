"""How a translation model is evaluated: what is gathered over its batches, and how these are cut to what memory holds."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.bucketing import TranslationBatch, starts_by_tokens
from lm.metrics import TokenMetrics
from mt.metrics import ChrF, CorpusBLEU, CorpusScore, TranslationAccuracy

TOKENS_AT_ONCE = 2**14
"""Tokens of a batch, with padding, that are evaluated at once; only a text that alone has more exceeds it."""
LONGEST = 1000
"""Tokens of a source that searches read in an evaluation, as many as the translate command reads: no search ends on 10,000."""


class Evaluated(NamedTuple):
    """What an evaluation came to.

    Attributes:
        values: metrics by name; scores of translations only where there were such.
        signatures: of these scores, what sacrebleu calls them.
    """

    values: dict[str, Tensor]
    signatures: dict[str, str]


class Evaluation(nn.Module):
    """The metrics of teacher forcing, and the scores of greedy translations and of those of another search.

    Args:
        language: code of the language translated into, which decides how BLEU cuts it into tokens.
        tokenization: of BLEU, by its name in sacrebleu; None goes by the language.
        lowercase: whether case does not count.
    """

    def __init__(self, language: str | None = None, tokenization: str | None = None, lowercase: bool = False) -> None:
        super().__init__()
        self.tokens = TokenMetrics()
        self.accuracy = TranslationAccuracy()
        bleu, chrf = partial(CorpusBLEU, language, tokenization, lowercase), partial(ChrF, lowercase=lowercase)
        self.greedy = nn.ModuleDict({"bleu": bleu(), "chrf": chrf()})
        self.searched = nn.ModuleDict({"bleu_search": bleu(), "chrf_search": chrf()})

    def add_predictions(self, nll: Tensor, correct: Tensor, mask: Tensor) -> None:
        """Add what was said of the right tokens, all `(batch, time)`, masked by 0 where there is none."""
        self.tokens.update(nll, mask=mask)
        self.accuracy.update(correct, mask)

    def add_translations(self, texts: Sequence[str], references: Sequence[Sequence[str]], *, searched: bool) -> None:
        """Add translations and the right ones of each: greedy ones, or those of the other search."""
        for score in (self.searched if searched else self.greedy).children():
            assert isinstance(score, CorpusScore)
            score.update(texts, references)

    def compute(self, *, searched: bool) -> Evaluated:
        """What there is, of all ranks, and begin anew; with or without the scores of the other search."""
        values = {name: value for name, value in self.tokens.compute().items() if name in ("loss", "ppl")}
        values |= self.accuracy.compute()
        signatures = {}
        for name, score in [*self.greedy.items(), *(self.searched.items() if searched else ())]:
            assert isinstance(score, CorpusScore)
            value = score.compute()  # on every rank, also on one that had no sentence
            score.reset()
            if not value.isnan():
                values[name], signatures[name] = value, score.signature
        self.tokens.reset()
        self.accuracy.reset()
        return Evaluated(values, signatures)


def in_parts(batch: TranslationBatch, tokens: int) -> Iterator[TranslationBatch]:
    """A batch, or parts of it whose rows are of about one length, with so many tokens on either side at most.

    A long text beside short ones would have all of them padded to its length, and has a part to itself instead.
    """
    if max(batch.source.numel(), batch.target.numel()) <= tokens:
        yield batch
        return
    lengths = torch.maximum(batch.source_lengths, batch.target_lengths).cpu().numpy()
    order = lengths.argsort(kind="stable")
    for part in np.split(order, starts_by_tokens(lengths[order], tokens)[1:]):
        rows = torch.from_numpy(part).to(batch.source.device)
        source_lengths, target_lengths = batch.source_lengths[rows], batch.target_lengths[rows]
        source, target = batch.source[rows, : source_lengths.max()], batch.target[rows, : target_lengths.max()]
        yield TranslationBatch(source, source_lengths, target, target_lengths, batch.indices[rows], batch.normalizer)


def real_rows(batch: TranslationBatch) -> list[int]:
    """The rows that are pairs: a rank without any has one that stands for none."""
    return [row for row, index in enumerate(batch.indices.tolist()) if index >= 0]


def shortened(tokens: Tensor, lengths: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """Texts `(batch, time)` of lengths `(batch,)` that end in `<eos>`, cut to so many tokens and their `<eos>`; lengths too."""
    kept = lengths.clamp(max=longest + 1)
    end = tokens.gather(1, lengths[:, None] - 1)
    return tokens[:, : longest + 1].scatter(1, kept[:, None] - 1, end), kept
