"""What a translation may not be, written into the log-probabilities as −inf before any search chooses from them."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mt.step import Special


@dataclass(kw_only=True)
class Constraints:
    """Bans. The probabilities of what is left are not normalised again: a score is that of the model.

    Where nothing is left, a hypothesis is dropped.

    Args:
        min_length: tokens of a translation at least, `<eos>` counted.
        max_length: tokens at most, `<eos>` counted; None leaves it to what else limits them.
        no_repeat_ngram: no n-gram of this size comes twice in a translation (Paulus et al. 2018, §2.5); 0 lets all repeat.
        ban_unknown: never write the unknown word.

    Raises:
        ValueError: if a size is negative, or no length is allowed.
    """

    min_length: int = 0
    max_length: int | None = None
    no_repeat_ngram: int = 0
    ban_unknown: bool = False

    def __post_init__(self) -> None:
        if self.min_length < 0 or self.no_repeat_ngram < 0:
            raise ValueError(
                "constraints: min_length and no_repeat_ngram are counts from 0,"
                f" got min_length={self.min_length}, no_repeat_ngram={self.no_repeat_ngram}"
            )
        if self.max_length is not None and self.max_length < max(1, self.min_length):
            raise ValueError(
                "constraints: max_length is a count from 1 and no less than min_length,"
                f" got max_length={self.max_length}, min_length={self.min_length}"
            )

    def apply(self, log_prob: Tensor, position: int, special: Special, prefixes: Tensor, history: Callable[[], Tensor]) -> None:
        """Ban in place; what a prefix forces stands above all bans.

        Args:
            log_prob: `(sentences, hypotheses, vocab)` of the token at `position`, counted from 0.
            special: ids of the vocabulary.
            prefixes: `(sentences, time)`, −1 where nothing is forced.
            history: gives the tokens before `position`, `(sentences, hypotheses, position)`.
        """
        forced = prefixes[:, position] if position < prefixes.shape[1] else None
        wanted = None if forced is None else take(log_prob, forced)
        log_prob[..., special.beginning] = -torch.inf
        log_prob[..., special.padding] = -torch.inf
        if self.ban_unknown and special.unknown is not None:
            log_prob[..., special.unknown] = -torch.inf
        if position + 1 < self.min_length:
            log_prob[..., special.end] = -torch.inf
        if 0 < self.no_repeat_ngram <= position:
            block_repeats(log_prob, history(), self.no_repeat_ngram, special.beginning)
        if forced is not None and wanted is not None:
            force(log_prob, forced, wanted)


def block_repeats(log_prob: Tensor, history: Tensor, size: int, banned: int) -> None:
    """Ban, in place, every token that would make an n-gram that the history holds already.

    Args:
        log_prob: `(..., vocab)` of the next token.
        history: `(..., time)`, at least `size` tokens.
        size: n.
        banned: a token that is banned anyway.
    """
    ngrams = history.unfold(-1, size, 1)
    begun = (ngrams[..., :-1] == history[..., None, history.shape[-1] - size + 1 :]).all(dim=-1)
    log_prob.scatter_(-1, ngrams[..., -1].where(begun, banned), -torch.inf)


def take(log_prob: Tensor, token: Tensor) -> Tensor:
    """Log-probabilities `(sentences, hypotheses, vocab)` of a token `(sentences,)` each -> `(sentences, hypotheses, 1)`."""
    return log_prob.gather(-1, token.clamp(min=0)[:, None, None].expand(-1, log_prob.shape[1], 1))


def force(log_prob: Tensor, token: Tensor, wanted: Tensor) -> None:
    """Ban, in place, all but a token `(sentences,)`, and give it the log-probability wanted; −1 leaves a sentence alone."""
    free = (token < 0)[:, None, None]
    kept = wanted.where(~free, take(log_prob, token))
    log_prob.masked_fill_(~free, -torch.inf)
    log_prob.scatter_(-1, token.clamp(min=0)[:, None, None].expand_as(kept), kept)
