"""A process that is killed in the middle of its training, without a chance to write anything."""

import os
import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Kill(Callback):
    """Kills one rank before a batch.

    Args:
        batch: counted from 0 over all epochs.
        rank: of the process.
    """

    def __init__(self, batch: int, rank: int = 0) -> None:
        self.batch, self.rank = batch, rank

    def on_train_batch_start(self, trainer: Trainer, _: LightningModule, __: Any, batch_idx: int) -> None:
        """Nobody hears of it."""
        now = trainer.current_epoch * int(trainer.num_training_batches) + batch_idx
        if now == self.batch and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
