"""Learning-rate schedules as Lightning needs them: what to step, when, and on which metric."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from lightning import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


@dataclass
class Schedule:
    """A scheduler of torch.optim.lr_scheduler and the times at which it steps.

    Args:
        scheduler: makes it from the optimizer.
        interval: step after every optimizer step, or after every epoch.
        monitor: the metric it follows, for ReduceLROnPlateau, for example `val/loss`.
        total_steps_as: the scheduler's argument that takes the number of optimizer steps of the whole run, if it has one:
            `total_steps` for OneCycleLR, `T_max` for CosineAnnealingLR, `total_iters` for LinearLR and PolynomialLR.
    """

    scheduler: Callable[[Optimizer], LRScheduler]
    interval: Literal["step", "epoch"] = "step"
    monitor: str | None = None
    total_steps_as: str | None = None

    def configure(self, optimizer: Optimizer, trainer: Trainer) -> dict[str, Any]:
        """Lightning's description of the schedule.

        Raises:
            ValueError: if the schedule needs the number of steps and the Trainer sets no end.
        """
        arguments = {}
        if self.total_steps_as:
            steps = trainer.estimated_stepping_batches
            if steps == float("inf"):
                raise ValueError(
                    "schedule: it ends with the run, and the run has no end: set trainer.max_epochs or trainer.max_steps"
                )
            arguments[self.total_steps_as] = int(steps)
        chosen = {"scheduler": self.scheduler(optimizer, **arguments), "interval": self.interval}
        return chosen | ({"monitor": self.monitor} if self.monitor else {})
