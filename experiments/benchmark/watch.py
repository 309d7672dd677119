"""The speed of training, epoch by epoch."""

import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

BARE: dict[str, Any] = {
    "limit_val_batches": 0,
    "logger": False,
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "enable_progress_bar": False,
}
"""Settings of a Trainer that does nothing but train."""


class Watch(Callback):
    """Tokens a second in each epoch of training, of all ranks together; of a translation model the target's."""

    def __init__(self) -> None:
        self.speeds: list[float] = []
        self.started, self.tokens = 0.0, 0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start."""
        self.started, self.tokens = time.perf_counter(), 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count."""
        self.tokens += outputs["tokens"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop, and add up the tokens of all ranks."""
        seconds = time.perf_counter() - self.started
        self.speeds.append(float(trainer.strategy.reduce(torch.tensor(float(self.tokens)), reduce_op="sum")) / seconds)
