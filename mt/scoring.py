"""How probable given translations are: texts in, their log-probabilities out."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from lm.text_score import TextScore
from mt.step import Special
from mt.translation import Translator, padded, tokenizers_of


class Scorer(Translator, Protocol):
    """What translates, and knows how probable a translation is."""

    def target_nll(self, tokens: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """−log P of the tokens of targets given sources, as of `mt.Seq2Seq`."""


@torch.no_grad()
def score_pairs(model: Scorer, sources: Sequence[str], targets: Sequence[str]) -> list[TextScore]:
    """Score each target as the translation of its source, all as one batch. See `mt.Seq2Seq.score`."""
    if len(sources) != len(targets):
        raise ValueError(f"score: there are {len(sources)} sources and {len(targets)} targets; give a target for each source")
    if not sources:
        return []
    source_tokenizer, target_tokenizer = tokenizers_of([model])
    source_end, special = Special.of(source_tokenizer).end, Special.of(target_tokenizer)
    read = padded([[*source_tokenizer.encode(text), source_end] for text in sources], model.device)
    rows = [[special.beginning, *target_tokenizer.encode(text), special.end] for text in targets]
    with model.evaluating():
        nll = model.target_nll(*read, padded(rows, model.device)[0]).cpu()
    return [TextScore(target_tokenizer.tokens(row[1:]), values[: len(row) - 1]) for row, values in zip(rows, nll, strict=True)]
