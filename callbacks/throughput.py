"""Tokens per second."""

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer

SECONDS_IN_A_MEASUREMENT = 1.0


class Throughput(Callback):
    """Logs `train/tokens_per_second`, over all ranks, measured over about a second of training.

    Time that is not training (data, validation, samples, checkpoints at the end of an epoch) does not count.
    """

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self.started = 0.0
        self.rate = 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start the watch."""
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Stop it."""
        self.seconds += time.perf_counter() - self.started
        self.tokens += outputs["tokens"] * trainer.world_size
        if self.seconds >= SECONDS_IN_A_MEASUREMENT or not self.rate:
            self.rate = self.tokens / self.seconds
            self.tokens, self.seconds = 0, 0.0
        pl_module.log("train/tokens_per_second", self.rate, prog_bar=True, batch_size=1)
