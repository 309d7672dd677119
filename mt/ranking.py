"""How finished translations of different lengths are compared."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(kw_only=True)
class Ranking:
    """The score of a translation Y of a source X: its log-probability, normalised for length, less a penalty on coverage.

        score = log P(Y|X) / ((offset + L) / (offset + 1))^alpha + coverage · Σ_i log min(Σ_j a_ij, 1)

    L is the number of tokens of Y and counts `<eos>`, as log P does; a_ij is what word j of Y attends to word i of X.
    An offset of 0 gives 1/L^alpha (Zhang et al., Dive into Deep Learning, §10.8), an offset of 5 the score of GNMT (Wu et
    al. 2016, eq. 14).

    Args:
        alpha: strength of the length normalisation; 0 compares log P itself, which favours short translations.
        offset: how slowly it sets in.
        coverage: strength of the penalty on source words that attention has left out.

    Raises:
        ValueError: if one is negative: a search could then not tell when to stop.
    """

    alpha: float = 0.75
    offset: float = 0.0
    coverage: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < math.inf for value in (self.alpha, self.offset, self.coverage)):
            raise ValueError(
                "ranking: alpha, offset and coverage are numbers from 0,"
                f" got alpha={self.alpha}, offset={self.offset}, coverage={self.coverage}"
            )

    def divisor(self, length: int) -> float:
        """What log P of a translation of this length is divided by; positive, and it never falls with the length."""
        return float(((self.offset + length) / (self.offset + 1)) ** self.alpha)

    def penalty(self, coverage: Tensor | None, source_lengths: Tensor | None) -> Tensor:
        """The term of coverage, never positive.

        Args:
            coverage: Σ_j a_ij `(sentences, hypotheses, source_time)`.
            source_lengths: `(sentences,)`, words of each source; what is behind them is not missed.

        Returns:
            `(sentences, hypotheses)`.

        Raises:
            ValueError: if either is missing.
        """
        if coverage is None or source_lengths is None:
            missing = "a model with attention" if coverage is None else "the source_lengths"
            raise ValueError(f"ranking: a coverage penalty of {self.coverage} needs {missing}; set coverage to 0")
        real = torch.arange(coverage.shape[-1], device=coverage.device) < source_lengths[:, None]
        # A word that got no attention at all must not make a score infinite.
        missed = coverage.clamp(torch.finfo(coverage.dtype).tiny, 1).log() * real[:, None]
        return self.coverage * missed.sum(dim=-1)
