"""How far the weights of a language model move in dynamic evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from datamodules.streams import CompleteStream, Window
from lm.evaluation import Reading
from lm.module import LanguageModel


class Step(NamedTuple):
    """How far a weight moves: W ← W + pull ⊙ (W₀ − W) − push ⊙ g; both of its shape, or scalars."""

    pull: Tensor
    push: Tensor


@dataclass(kw_only=True)
class UpdateRule(ABC):
    """How far each weight moves, from a learning rate η and a decay λ."""

    @abstractmethod
    def steps(
        self, model: LanguageModel, training: Callable[[], np.ndarray], segment: int, learning_rate: float, decay: float
    ) -> list[Step]:
        """The step of each weight that learns.

        Args:
            model: a model, not yet changed.
            training: gives the tokens that it was trained on.
            segment: words between two steps.
            learning_rate: η.
            decay: λ.
        """


@dataclass(kw_only=True)
class GradientDescent(UpdateRule):
    """The same for all weights: W ← W + λ·(W₀ − W) − η·g."""

    def steps(
        self, model: LanguageModel, training: Callable[[], np.ndarray], segment: int, learning_rate: float, decay: float
    ) -> list[Step]:
        """See UpdateRule."""
        return [Step(weight.new_tensor(decay), weight.new_tensor(learning_rate)) for weight in learning(model).values()]


@dataclass(kw_only=True)
class RMS(UpdateRule):
    """Steps in inverse proportion to the gradients that a weight had in training (Krause et al. 2018, §5).

        r = √(mean of g² over windows), D = r / mean(r)
        W ← W + λ·D·(W₀ − W) − η·g / (r + ε)

    A weight of large gradients takes small steps, and falls back fast: λ·D is at most 1. As in the authors' code, the mean of r
    is that over the tensors of weights of the mean of each, and g in it is the gradient of the mean loss over several lanes.

    Args:
        lanes: windows side by side; gradients are smaller for more of them, and steps larger.
        windows: how many are read; null for all of the training split.
        epsilon: ε.

    Raises:
        ValueError: if an argument is out of its range.
    """

    lanes: int = 100
    windows: int | None = None
    epsilon: float = 2e-5

    def __post_init__(self) -> None:
        if self.lanes < 1 or (self.windows is not None and self.windows < 1):
            raise ValueError(f"RMS: lanes and windows count from 1, got {self.lanes} and {self.windows}")
        if self.epsilon <= 0:
            raise ValueError(f"RMS: epsilon keeps steps finite, a number above 0, got {self.epsilon}")

    def steps(
        self, model: LanguageModel, training: Callable[[], np.ndarray], segment: int, learning_rate: float, decay: float
    ) -> list[Step]:
        """See UpdateRule."""
        windows = CompleteStream(training(), self.lanes, segment)
        count = min(len(windows), self.windows or len(windows))
        rank_zero_info(f"dynamic evaluation: the gradients of {count} windows of {self.lanes} x {segment} training tokens")
        return self.scaled(root_mean_squares(model, islice(windows, count)), learning_rate, decay)

    def scaled(self, sizes: Sequence[Tensor], learning_rate: float, decay: float) -> list[Step]:
        """The step of each weight from its r."""
        mean = torch.stack([size.mean() for size in sizes]).mean()
        return [Step((decay / mean * size).clamp(max=1), learning_rate / (size + self.epsilon)) for size in sizes]


def root_mean_squares(model: LanguageModel, windows: Iterable[Window]) -> list[Tensor]:
    """√(mean of g²) of each weight that learns, g being the gradient of the mean loss of one of these windows."""
    squares = [torch.zeros_like(weight) for weight in learning(model).values()]
    count = 0
    for window in windows:
        count += 1
        _, gradients = differentiated(model, window, "statistics")
        for square, gradient in zip(squares, gradients, strict=True):
            square.addcmul_(gradient, gradient)
    return [square.div_(count).sqrt_() for square in squares]


def differentiated(model: LanguageModel, window: Window, stage: str) -> tuple[Reading, tuple[Tensor, ...]]:
    """What a model says of a window, and the gradient of the mean loss for each weight that learns."""
    # A tensor that was made in inference mode takes part in no gradient, and its copy does.
    tokens, targets, mask = (None if part is None else part.to(model.device, copy=True) for part in window)
    assert tokens is not None
    assert targets is not None
    output, loss = model.window_loss(Window(tokens, targets, mask), stage)
    weights = list(learning(model).values())
    gradients = torch.autograd.grad(loss.total, weights, materialize_grads=True)
    torch.clear_autocast_cache()  # autocast remembers the casts of weights that are about to change
    return Reading(loss.nll, None, output.raw.detach()), gradients


def learning(model: LanguageModel) -> dict[str, nn.Parameter]:
    """The weights that learn, one that is shared among modules once."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
