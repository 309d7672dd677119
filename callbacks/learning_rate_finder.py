"""A learning rate found by trying all of them in one short run."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from callbacks.paths import run_folder, shown
from lm.base import NonFiniteLossError, SequenceModule
from lm.schedule import Schedule

DIVERGED = 2.0
"""How many times its lowest value a loss is that will not come back."""


class LearningRateFinder(Callback):
    """Raises the learning rate by the same factor after every step, in place of the module's schedule (Smith 2017, §3.3).

    When the loss grows to twice its lowest value, or at the highest rate, the run ends: a line tells a tenth of the rate at which
    the loss was lowest, and a picture in the run's folder shows the loss over the rate. (Where it fell fastest would be too low:
    there a language model learns no more than how frequent words are.)

    All else is as in training: clipping, penalties, ties, carried states, and the shares of layer groups, whose last has the rate
    that is told. (Lightning's own finder leaves out all callbacks, and gives all groups one rate.)

    Args:
        lowest: the rate of the first step.
        highest: the rate of the last step.
        steps: optimizer steps from one to the other.
        file: name of the picture.

    Raises:
        ValueError: if rates do not rise, or steps are too few.
        TypeError: if the module has no schedule to replace.
    """

    def __init__(self, lowest: float = 1e-6, highest: float = 10.0, steps: int = 200, file: str = "learning_rate.png") -> None:
        if not 0 < lowest < highest or steps < 20:
            raise ValueError(
                f"LearningRateFinder: rates rise from lowest to highest in 20 steps or more, got {lowest=}, {highest=}, {steps=}"
            )
        self.file = file
        self.path = Path(file)
        self.rates = [lowest * (highest / lowest) ** (step / (steps - 1)) for step in range(steps)]
        self.losses: list[float] = []
        self.replaced: Schedule | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the place of the schedule."""
        self.path = run_folder(trainer) / self.file
        if not isinstance(pl_module, SequenceModule):
            raise TypeError(
                f"LearningRateFinder needs a SequenceModule, which has a schedule; {type(pl_module).__name__} has none"
            )
        if pl_module.make_optimizer is None:
            raise TypeError(f"LearningRateFinder: a {type(pl_module).__name__} follows no gradient, and so has no learning rate")
        self.replaced = pl_module.schedule
        rising = partial(rising_rates, rates=self.rates)
        factor = 1.0 if self.replaced is None else self.replaced.layer_factor
        pl_module.schedule = Schedule(rising, layer_factor=factor)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give it back."""
        if isinstance(pl_module, SequenceModule):
            pl_module.schedule = self.replaced

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """After a step, note the loss over all ranks; end the run where it has grown too far."""
        if trainer.global_step == len(self.losses):  # in the middle of an accumulation
            return
        loss = trainer.strategy.reduce(trainer.callback_metrics["train/loss"], reduce_op="mean")
        self.losses.append(float(loss))
        if len(self.losses) == len(self.rates) or self.losses[-1] > DIVERGED * min(self.losses):
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell what was found."""
        self.tell(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """A loss that is no number is one way to grow too far."""
        if isinstance(exception, NonFiniteLossError):
            self.tell(trainer)

    def tell(self, trainer: Trainer) -> None:
        """Draw, and print one line, on one rank."""
        if not trainer.is_global_zero:
            return
        tried = self.rates[: len(self.losses)]
        chosen = suggestion(tried, self.losses)
        draw(tried, self.losses, chosen, self.path)
        print(f"learning rate: {chosen:.2g}, a tenth of that with the lowest loss: {shown(self.path)}", flush=True)


def rising_rates(optimizer: Optimizer, rates: Sequence[float]) -> LambdaLR:
    """A scheduler that gives the group with the highest rate each of these in turn, and others their share."""
    own = max(group["lr"] for group in optimizer.param_groups)
    return LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)] / own)


def smoothed(losses: Sequence[float]) -> Tensor:
    """The mean of each loss and a twentieth of all on either side of it, `(losses,)`; at the ends, of what there is of these."""
    around = len(losses) // 20
    values = torch.tensor([list(losses), [1.0] * len(losses)], dtype=torch.float64)
    sums = functional.pad(values, (around, around)).unfold(1, 2 * around + 1, 1).sum(dim=2)
    return sums[0] / sums[1]


def suggestion(rates: Sequence[float], losses: Sequence[float]) -> float:
    """A tenth of the rate with the lowest smoothed loss.

    Raises:
        ValueError: if that is the first.
    """
    lowest = int(smoothed(losses).argmin())
    if lowest == 0:
        raise ValueError(
            f"learning rate: the loss does not fall from a rate of {rates[0]:.2g} on: begin with a lower one, --finder.lowest"
        )
    return rates[lowest] / 10


def draw(rates: Sequence[float], losses: Sequence[float], chosen: float, path: Path) -> None:
    """The loss over the rate as a picture, with the rate that was chosen."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(rates, losses, alpha=0.3, label="loss of each step")
    axes.plot(rates, smoothed(losses), color="C0", label="mean of steps around")
    axes.axvline(chosen, color="C1", label=f"suggested: {chosen:.2g}")
    axes.set(xlabel="learning rate", ylabel="loss", xscale="log", ylim=(None, 1.2 * max(losses[: len(losses) // 2])))
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
