"""Dropout for sequences."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Each feature of each step on its own (Srivastava et al. 2014).

    Args:
        rate: probability that a feature is zeroed; the others are scaled by 1/(1 − rate).

    Raises:
        ValueError: if the rate is no probability below 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"{type(self).__name__}: the rate is a probability below 1, got {rate}")
        self.rate = rate

    @property
    def active(self) -> bool:
        """Whether anything is dropped: in training, at a rate above 0."""
        return self.training and self.rate > 0

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, time, features)` -> the same shape; nothing happens in evaluation."""
        if not self.active:
            return x
        return x * dropout_mask(x, self.rate) if x.device.type == "cpu" else functional.dropout(x, self.rate)

    def held(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """Dropout of the steps of a sequence that is read step by step, each of the shape of x."""
        return self

    def ahead(self, steps: int) -> Callable[[Tensor], Tensor]:
        """Dropout of that many steps of one shape, whose masks are drawn together: one by one takes a CPU longer."""
        masks: list[Tensor] = []

        def dropped(x: Tensor) -> Tensor:
            if not self.active:
                return x
            if not masks:
                masks.extend(self.masks(x, steps))
            return x * masks.pop()

        return dropped

    def masks(self, x: Tensor, steps: int) -> Sequence[Tensor]:
        """Masks of that many steps, each of the shape of x."""
        return dropout_mask(x.expand(steps, *x.shape), self.rate).unbind()

    def extra_repr(self) -> str:
        """The rate, for the printed module."""
        return f"rate={self.rate}"


class LockedDropout(Dropout):
    """Variational dropout: one mask a sequence, the same at every step (Gal & Ghahramani 2016; Merity et al. 2017, §4.2)."""

    def forward(self, x: Tensor) -> Tensor:
        """See Dropout."""
        return self.held(x[:, :1])(x)

    def held(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """See Dropout: one mask, drawn here."""
        if not self.active:
            return lambda step: step
        mask = dropout_mask(x, self.rate)
        return lambda step: step * mask

    def masks(self, x: Tensor, steps: int) -> Sequence[Tensor]:
        """See Dropout: the same for all."""
        return [dropout_mask(x, self.rate)] * steps


def dropout_mask(like: Tensor, rate: float) -> Tensor:
    """0 with the probability `rate`, otherwise 1/(1 − rate), in the shape and dtype of `like`.

    torch's generator makes 64 bits about as fast as one number, and on a CPU a mask takes as long as a matrix product: there an
    element is decided by 16 of them, a number below a threshold. The threshold, rate·2¹⁶, is rounded up or down at random, once
    a mask and with the probability that makes its mean exact.
    """
    if like.device.type != "cpu":
        return torch.empty_like(like).bernoulli_(1 - rate).div_(1 - rate)
    bits = torch.empty(1 + (like.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    numbers = bits[1:].view(torch.int16)[: like.numel()].view(like.shape)
    threshold = int(rate * 2**16 + (int(bits[0]) + 2**63) / 2**64)
    kept = numbers >= min(threshold - 2**15, 2**15 - 1)
    return kept.view(torch.uint8).to(like.dtype).div_(1 - rate)  # booleans would be converted one by one
