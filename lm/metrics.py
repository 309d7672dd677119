"""Token-weighted metrics, exact over windows of any size and over ranks."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import Metric


class TokenMetrics(Metric):
    """Loss, perplexity, accuracy and bits per unit of text, from the nll of single tokens.

    Sums are kept in float64, where the device has it, and divided once, at the end: perplexity is exp(Σ nll / Σ tokens).
    """

    full_state_update = False
    tokens: Tensor
    nll: Tensor
    correct: Tensor
    judged: Tensor
    units: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("tokens", "nll", "correct", "judged", "units"):
            self.add_state(name, torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, nll: Tensor, correct: Tensor | None = None, mask: Tensor | None = None, units: Tensor | None = None) -> None:
        """Add a window.

        Args:
            nll: of each token in nats, any shape.
            correct: whether each token was the most probable one; None where that is not known.
            mask: 0 where there is no token; None where there is one everywhere.
            units: characters or bytes that each token stands for.
        """
        mask = torch.ones_like(nll) if mask is None else mask
        # Not in place: after a validation on its own, which runs in inference mode, a sum could not be changed in training.
        self.tokens = self.tokens + mask.sum(dtype=self.nll.dtype)
        self.nll = self.nll + (nll * mask).sum(dtype=self.nll.dtype)
        if correct is not None:
            self.correct = self.correct + (correct * mask).sum(dtype=self.correct.dtype)
            self.judged = self.judged + mask.sum(dtype=self.judged.dtype)
        if units is not None:
            self.units = self.units + (units * mask).sum(dtype=self.units.dtype)

    def compute(self) -> Mapping[str, Tensor]:
        """`loss` in nats a token, `ppl`, `accuracy`, and `bits` a unit; nan for what nothing was given of."""
        loss = self.nll / self.tokens
        return {
            "loss": loss.float(),
            "ppl": loss.exp().float(),
            "accuracy": (self.correct / self.judged).float(),
            "bits": (self.nll / self.units / math.log(2)).float(),
        }

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        if fn(torch.zeros(1)).device.type == "mps":  # Apple's GPUs have no float64
            self.set_dtype(torch.float32)
        return super()._apply(fn, exclude_state)
