"""Scheduled sampling: how often a decoder in training reads the true token, and how often its own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lm.heads import Head
from mt.decoder import NextInput


@dataclass(frozen=True)
class ScheduledSampling:
    """The probability ε of the true token as training goes on (Bengio et al. 2015, §2.4).

    - `constant`: ε = start.
    - `linear`: from `start` to `end` in `steps` steps of the optimizer, then `end`.
    - `inverse_sigmoid`: end + (start − end)·(1 + 1/k) · k/(k + exp(i/k)), with k such that half of the way is gone after `steps`.

    Args:
        decay: one of these.
        start: ε at the beginning; 1 is teacher forcing.
        end: ε in the end.
        steps: of the optimizer.

    Raises:
        ValueError: if an argument is out of its range.
    """

    decay: Literal["constant", "linear", "inverse_sigmoid"] = "linear"
    start: float = 1.0
    end: float = 0.5
    steps: int = 10_000

    def __post_init__(self) -> None:
        if not (0 <= self.end <= 1 and 0 <= self.start <= 1):
            raise ValueError(f"scheduled sampling: start and end are probabilities, got {self.start} and {self.end}")
        if self.steps < 1:
            raise ValueError(f"scheduled sampling: steps count from 1, got {self.steps}")

    def truth(self, step: int) -> float:
        """ε at a step of the optimizer."""
        if self.decay == "constant":
            return self.start
        if self.decay == "linear":
            return self.start + (self.end - self.start) * min(1.0, step / self.steps)
        k = sigmoid_constant(self.steps)
        left = (k + 1) / (k + math.exp(min(step / k, 700.0)))
        return self.end + (self.start - self.end) * left


def sigmoid_constant(steps: int) -> float:
    """k for which (k + 1)/(k + exp(steps/k)) is a half, by bisection: exp(steps/k) = k + 2."""
    low, high = steps / 700.0, float(max(steps, 2))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if steps / middle > math.log(middle + 2) else (low, middle)
    return high


def partly_own(head: Head, target: Tensor, truth: float, never: Sequence[int]) -> NextInput:
    """Inputs of a decoder: the true token of a row, or one drawn from what the model said in the step before.

    Args:
        head: makes a distribution of what was said.
        target: the true tokens, `(rows, time)`.
        truth: probability ε of the true one.
        never: tokens that are not drawn, for no translation has them.
    """

    @torch.no_grad()
    def next_input(time: int, said: Tensor) -> Tensor:
        true = target[:, time]
        log_prob = head.log_prob(said)
        log_prob[:, never] = -torch.inf
        drawn = torch.multinomial(log_prob.softmax(dim=-1), 1).squeeze(1)
        return true.where(torch.rand(true.shape, device=true.device) < truth, drawn)

    return next_input
