"""Dropout for sequences."""

from torch import Tensor, nn


class LockedDropout(nn.Module):
    """Variational dropout: one mask a sequence, the same at every step (Gal & Ghahramani 2016; Merity et al. 2017, §4.2).

    Args:
        rate: probability that a feature is zeroed; the others are scaled by 1/(1 − rate).
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"LockedDropout: the rate is a probability below 1, got {rate}")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, time, features)` -> the same shape; nothing happens in evaluation."""
        if not self.training or self.rate == 0:
            return x
        mask = x.new_empty(x.shape[0], 1, x.shape[2]).bernoulli_(1 - self.rate).div_(1 - self.rate)
        return x * mask

    def extra_repr(self) -> str:
        """The rate, for the printed module."""
        return f"rate={self.rate}"
