"""The slanted triangular learning rate."""

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler


class SlantedTriangularLR(LRScheduler):
    """A short linear rise and a long linear fall (Howard & Ruder 2018, §3.2, eq. 3).

        cut = ⌊T · cut_fraction⌋
        p = t / cut  if t < cut,  else  1 − (t − cut) / (T − cut)
        η_t = η_max · (1 + p · (ratio − 1)) / ratio

    The paper's eq. 3 has cut · (1/cut_fraction − 1) in place of T − cut: the same where T · cut_fraction is a whole number, and
    where it is none, negative rates at the end of a short run.

    Args:
        optimizer: its rates are η_max.
        total_steps: T, steps of the whole run, filled in by the `total_steps_as` of a Schedule; later ones stay at η_max / ratio.
        cut_fraction: the share of them in which rates rise.
        ratio: how much smaller the lowest rate is than the highest.

    Raises:
        ValueError: if there is no step, or the fraction or the ratio makes no triangle.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int | None = None, cut_fraction: float = 0.1, ratio: float = 32.0
    ) -> None:
        if total_steps is None:
            raise ValueError(
                "SlantedTriangularLR: it falls to the end of the run: set total_steps_as of the schedule to total_steps"
            )
        if total_steps < 1 or not 0 <= cut_fraction < 1 or ratio < 1:
            raise ValueError(
                "SlantedTriangularLR: total_steps and ratio count from 1, and cut_fraction from 0 to below 1,"
                f" got {total_steps=}, {cut_fraction=}, {ratio=}"
            )
        self.total_steps = total_steps
        self.cut = int(total_steps * cut_fraction)
        self.ratio = ratio
        super().__init__(optimizer)

    def get_lr(self) -> list[float | Tensor]:
        """The rate of each group at step t."""
        t = min(self.last_epoch, self.total_steps)
        p = t / self.cut if t < self.cut else 1 - (t - self.cut) / (self.total_steps - self.cut)
        return [highest * (1 + p * (self.ratio - 1)) / self.ratio for highest in self.base_lrs]
