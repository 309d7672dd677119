"""What a run came to, in a few lines at its end."""

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks.curve import LearningCurve
from callbacks.paths import shown


class RunReport(Callback):
    """Prints a metric before and after training, and where the checkpoint and the curve lie.

    The value before is that of Lightning's sanity check where it reads the whole validation text: `num_sanity_val_steps: -1`.

    Args:
        metric: a logged metric.
    """

    def __init__(self, metric: str = "val/ppl") -> None:
        self.metric = metric
        self.before: float | None = None

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the metric of the untrained model."""
        if self.metric in trainer.callback_metrics and trainer.num_sanity_val_steps == float("inf"):
            self.before = float(trainer.callback_metrics[self.metric])

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print."""
        if not trainer.is_global_zero:
            return
        lines = []
        if self.metric in trainer.callback_metrics:
            before = "" if self.before is None else f"{number(self.before)} before training, "
            lines.append(f"{self.metric}: {before}{number(float(trainer.callback_metrics[self.metric]))} after")
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_path:
                lines.append(f"checkpoint: {shown(checkpoint.best_model_path)}")
        for curve in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(curve, LearningCurve):
                lines.append(f"curve: {shown(curve.path)}")
        print("\n".join(lines), flush=True)


def number(value: float) -> str:
    """A perplexity or BLEU with one decimal, a share such as an accuracy with three."""
    return f"{value:,.1f}" if value > 1 else f"{value:.3f}"
