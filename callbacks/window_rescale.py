"""A learning rate in proportion to the length of the window."""

from collections.abc import Iterable
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch.optim import ASGD, Optimizer
from torch.utils.hooks import RemovableHandle

from datamodules.language import LanguageData
from datamodules.streams import Window


class WindowRescale(Callback):
    """Takes each step of the optimizer with lr·T/S, of a window of T tokens where `data.steps` is S (Merity et al. 2017, §4.1).

    The loss is a mean over the window; without this, a token of a short window would count for more than one of a long window.
    With accumulated gradients, whose windows are one batch, T is the mean of their lengths.

    The rate is scaled right before the step and restored right after it, so that schedules, logs and checkpoints know the
    unscaled one alone. torch's ASGD takes a step with the rate that it stored the step before: there the stored one is scaled.

    Raises:
        TypeError: in `setup`, if the data is no LanguageData, whose windows have a length.
    """

    def __init__(self) -> None:
        self.base = 1
        self.lengths: list[int] = []
        self.rates: list[Any] = []  # what is to be restored
        self.hooks: list[RemovableHandle] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn S."""
        if stage != "fit":
            return
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, LanguageData):
            raise TypeError(f"WindowRescale needs a LanguageData, which cuts windows; {type(data).__name__} does not")
        self.base = data.steps

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stand before and behind every step of the optimizer."""
        optimizer = trainer.optimizers[0]
        self.hooks = [
            optimizer.register_step_pre_hook(lambda *_: self.scale(optimizer)),
            optimizer.register_step_post_hook(lambda *_: self.restore(optimizer)),
        ]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Window, batch_idx: int) -> None:
        """Note T, from where Lightning sets gradients to zero."""
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self.lengths = []
        self.lengths.append(batch.tokens.shape[1])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the optimizer alone."""
        while self.hooks:
            self.hooks.pop().remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Restore what a step that failed has left, before a callback saves it."""
        if self.rates:
            self.restore(trainer.optimizers[0])
        self.on_train_end(trainer, pl_module)

    def scale(self, optimizer: Optimizer) -> None:
        """Scale the rates for this step."""
        factor = sum(self.lengths) / len(self.lengths) / self.base
        self.rates = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * factor  # a new tensor, where it is one
        for _, state in stored_rates(optimizer):
            state["eta"].mul_(factor)

    def restore(self, optimizer: Optimizer) -> None:
        """Restore them for all others."""
        for group, rate in zip(optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate
        for group, state in stored_rates(optimizer):
            state["eta"].copy_(torch.as_tensor(next_rate(group, float(state["step"]))))
        self.rates = []


def stored_rates(optimizer: Optimizer) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    """Group and state of each parameter for which an ASGD has stored the rate of its next step; nothing for other optimizers."""
    if not isinstance(optimizer, ASGD):
        return []
    members = ((group, parameter) for group in optimizer.param_groups for parameter in group["params"])
    return [(group, optimizer.state[parameter]) for group, parameter in members if parameter in optimizer.state]


def next_rate(group: dict[str, Any], step: float) -> Any:
    """The rate that torch's ASGD stores after a step: lr / (1 + λ·lr·t)^α."""
    return group["lr"] / (1 + group["lambd"] * group["lr"] * step) ** group["alpha"]
