"""Dropout for sequences."""

from collections.abc import Callable

import torch
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
        return self.held(x[:, :1])(x)

    def held(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Dropout with one mask of the shape of x at every call, for a sequence that is read step by step."""
        if not self.training or self.rate == 0:
            return lambda step: step
        mask = torch.empty_like(x).bernoulli_(1 - self.rate).div_(1 - self.rate)
        return lambda step: step * mask

    def extra_repr(self) -> str:
        """The rate, for the printed module."""
        return f"rate={self.rate}"
