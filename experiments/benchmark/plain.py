"""What a language model of ours is compared with, and the loop that a person would write in an afternoon."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from datamodules import LanguageData, Window

CLIP = 0.25
"""The largest norm of a gradient, for all."""


class Other(ABC):
    """What a model of ours is compared with."""

    name: str

    @abstractmethod
    def train_epoch(self, epoch: int) -> None:
        """Truncated BPTT over the windows of an epoch, by its number."""

    @abstractmethod
    def perplexity(self) -> float:
        """Of the validation text."""


class Reading(NamedTuple):
    """What a plain model says about a window.

    Attributes:
        logits: `(batch, time, vocab)`.
        state: after the last step, detached.
        penalty: what regularization adds to the loss.
    """

    logits: Tensor
    state: Any
    penalty: Tensor | float = 0.0


class PlainLoop(Other):
    """What a person would write in an afternoon: torch modules, one loop, nothing else.

    Args:
        model: reads tokens `(batch, time)` and the state before them.
        optimizer: of its parameters.
        data: what it is trained on.
    """

    name = "plain PyTorch loop"

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, data: LanguageData) -> None:
        self.model, self.optimizer, self.data = model, optimizer, data
        self.windows = data.stream(data.tokens("train"), data.lanes, data.steps, data.place)

    def train_epoch(self, epoch: int) -> None:
        """See Other."""
        self.model.train()
        self.windows.set_epoch(epoch)
        state = None
        for window in self.windows:
            logits, state, penalty = self.model(window.tokens, state)
            loss = cross_entropy(logits.flatten(0, 1), window.targets.flatten()) + penalty
            self.optimizer.zero_grad()
            torch.autograd.backward(loss)
            nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
            self.optimizer.step()

    def perplexity(self) -> float:
        """See Other."""
        self.model.eval()
        return perplexity(self.model, self.data.val_dataloader()[0])


@torch.no_grad()
def perplexity(read: Callable[[Tensor, Any], Any], windows: Iterable[Window]) -> float:
    """Of a whole text.

    Args:
        read: tokens `(batch, time)` and the state before them -> the logits and the state after, and maybe more.
        windows: of the text.
    """
    state, nll, count = None, 0.0, 0.0
    for window in windows:
        logits, state, *_ = read(window.tokens, state)
        losses = cross_entropy(logits.flatten(0, 1), window.targets.flatten(), reduction="none")
        mask = torch.ones_like(losses) if window.mask is None else window.mask.flatten()
        nll, count = nll + float((losses * mask).sum()), count + float(mask.sum())
    return float(torch.tensor(nll / count).exp())
