"""The learning curve as a picture."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from callbacks.paths import run_folder
from callbacks.pictures import hand_to_loggers

SECONDS_BETWEEN_DRAWINGS = 20


class LearningCurve(Callback):
    """Draws metrics over training steps into `learning_curve.png` in the run's folder, and hands it to loggers that take images.

    Args:
        metrics: names of logged metrics, one line each.
        label: of the vertical axis, which is logarithmic.
        scores: metrics that a second panel shows on a linear axis; there is none where none of them is logged.
        file: name of the picture.
    """

    def __init__(
        self,
        metrics: Sequence[str] = ("train/ppl_epoch", "val/ppl"),
        label: str = "perplexity",
        scores: Sequence[str] = ("val/bleu",),
        file: str = "learning_curve.png",
    ) -> None:
        self.points: dict[str, list[tuple[int, float]]] = {name: [] for name in (*metrics, *scores)}
        self.metrics, self.scores = metrics, scores
        self.label = label
        self.file = file
        self.drawn_at = time.monotonic()
        self.path = Path(file)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn where to draw; later a rank could not ask by itself, for all of them answer together."""
        self.path = run_folder(trainer) / self.file

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add points before checkpoints are written, which keep them."""
        if not trainer.sanity_checking:
            self.add(trainer, trained=False)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add what the epoch before has logged at its very end, after every callback's hook; draw, unless that was just done."""
        self.add(trainer, trained=True)
        if time.monotonic() - self.drawn_at > SECONDS_BETWEEN_DRAWINGS:
            self.draw(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the whole curve."""
        self.add(trainer, trained=True)
        if (path := self.draw(trainer)) is not None:
            hand_to_loggers(trainer, path, "learning_curve")

    def add(self, trainer: Trainer, *, trained: bool) -> None:
        """A point for every metric of training, or for every other one, unless this step has it."""
        for name, points in self.points.items():
            known = bool(points) and points[-1][0] == trainer.global_step
            if name in trainer.callback_metrics and name.startswith("train/") == trained and not known:
                points.append((trainer.global_step, float(trainer.callback_metrics[name])))

    def draw(self, trainer: Trainer) -> Path | None:
        """Write the picture, on one rank; None where there is nothing to draw."""
        self.drawn_at = time.monotonic()
        if not trainer.is_global_zero or not any(self.points.values()):
            return None
        panels = [names for names in (self.metrics, self.scores) if any(self.points[name] for name in names)]
        figure = Figure(figsize=(7, 1 + 3 * len(panels)), layout="constrained")
        for axes, names in zip(figure.subplots(len(panels), sharex=True, squeeze=False).flat, panels, strict=True):
            self.draw_lines(axes, names)
            if names is self.metrics:
                axes.set(ylabel=self.label, yscale="log")
                axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))  # 30 and not 3 x 10^1
                axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
            else:
                axes.set(ylabel="score")
            axes.grid(alpha=0.3, which="both")
        axes.set(xlabel="optimizer steps")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.path, dpi=120)
        return self.path

    def draw_lines(self, axes: Axes, names: Sequence[str]) -> None:
        """One line for each of these metrics that has points."""
        for name in names:
            if points := self.points[name]:
                label = f"{name} (last: {points[-1][1]:.4g})"
                axes.plot(*zip(*points, strict=True), label=label, marker="." if len(points) < 50 else "")
        axes.legend()

    def state_dict(self) -> dict[str, Any]:
        """The points so far, so that a resumed run draws one curve."""
        return {"points": {name: [list(point) for point in points] for name, points in self.points.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue a curve."""
        for name, points in state_dict["points"].items():
            self.points[name] = [(int(step), float(value)) for step, value in points]
