"""TextScore: the probability of a text, token by token."""

from typing import NamedTuple

from torch import Tensor


class TextScore(NamedTuple):
    """What a model thinks of a text: a language model of a line, a translation model of a translation.

    Attributes:
        tokens: those that were predicted, in the order in which they were, the end of the text among them if it is a token.
        nll: −log P of each in nats, `(tokens,)`.
    """

    tokens: list[str]
    nll: Tensor

    @property
    def log_prob(self) -> float:
        """log P(text) in nats; of a translation log P(text | source)."""
        return -float(self.nll.sum())

    @property
    def perplexity(self) -> float:
        """P(text)^(−1/n) over its n predicted tokens; 1 for a text without any."""
        return float(self.nll.mean().exp()) if len(self.nll) else 1.0
