"""Learning rates as Lightning needs them: how they change over time, when and on which metric, and from layer to layer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning import Trainer
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

RATES = ("base_lr", "max_lr")
"""Arguments of torch's schedulers that are learning rates themselves, in place of the optimizer's: one, or one for each group."""


@dataclass
class Schedule:
    """A scheduler of torch.optim.lr_scheduler, the times at which it steps, and how rates differ from layer to layer.

    Args:
        scheduler: makes it from the optimizer; None for rates that stay.
        interval: step after every optimizer step, or after every epoch.
        monitor: the metric it follows, for ReduceLROnPlateau, for example `val/loss`.
        total_steps_as: the scheduler's argument that takes the number of optimizer steps of the whole run, if it has one:
            `total_steps` for OneCycleLR and SlantedTriangularLR, `T_max` for CosineAnnealingLR, `total_iters` for LinearLR and
            PolynomialLR.
        layer_factor: how many times faster each layer group learns than the one below it (discriminative fine-tuning, Howard &
            Ruder 2018, §3.2, where it is 2.6). The last group, with the head, has the rate that the optimizer and the scheduler
            are given.

    Raises:
        ValueError: if the factor is not positive.
    """

    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    interval: Literal["step", "epoch"] = "step"
    monitor: str | None = None
    total_steps_as: str | None = None
    layer_factor: float = 1.0

    def __post_init__(self) -> None:
        if self.layer_factor <= 0:
            raise ValueError(f"schedule: layer_factor divides learning rates and has to be positive, got {self.layer_factor}")

    def groups(self, layers: Sequence[Sequence[Parameter]]) -> list[dict[str, Any]]:
        """What an optimizer is made from where rates differ: a group a layer; `lr_scale` is its share of the rate."""
        scales = [self.layer_factor**-above for above in reversed(range(len(layers)))]
        return [{"params": list(layer), "lr_scale": scale} for layer, scale in zip(layers, scales, strict=True)]

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
        """Lightning's description of the optimizer, its groups at rates of their own, and the schedule.

        Raises:
            ValueError: if the schedule needs the number of steps and the Trainer sets no end, or if the scheduler gives all
                groups one rate.
        """
        scales = [group.get("lr_scale", 1.0) for group in optimizer.param_groups]
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] *= scale
        if self.scheduler is None:
            return {"optimizer": optimizer}
        given = getattr(self.scheduler, "keywords", {})
        arguments: dict[str, Any] = {
            name: [given[name] * scale for scale in scales] for name in RATES if isinstance(given.get(name), int | float)
        }
        if self.total_steps_as:
            arguments[self.total_steps_as] = total_steps(trainer)
        scheduler = self.scheduler(optimizer, **arguments)
        unscaled = [group["lr"] / scale for group, scale in zip(optimizer.param_groups, scales, strict=True)]
        if self.layer_factor != 1 and max(unscaled) - min(unscaled) > 1e-6 * max(unscaled):
            raise ValueError(
                f"schedule: {type(scheduler).__name__} gives layer groups rates that are no layer_factor of {self.layer_factor}"
                " apart; make it by its class path or functools.partial, so that its rates can be one for each group"
            )
        chosen = {"scheduler": scheduler, "interval": self.interval}
        return {"optimizer": optimizer, "lr_scheduler": chosen | ({"monitor": self.monitor} if self.monitor else {})}


def total_steps(trainer: Trainer) -> int:
    """Optimizer steps of the whole run.

    Raises:
        ValueError: if the run has no end.
    """
    steps = trainer.estimated_stepping_batches
    if steps == float("inf"):
        raise ValueError("schedule: it ends with the run, and the run has no end: set trainer.max_epochs or trainer.max_steps")
    return int(steps)
