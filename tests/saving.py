"""A checkpoint in the middle of a run."""

from pathlib import Path
from typing import Any

from lightning import Callback, Trainer


class SaveAt(Callback):
    """Writes a checkpoint after a step.

    Args:
        step: of the optimizer, counted from 1.
        path: of the file.
    """

    def __init__(self, step: int, path: Path) -> None:
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
