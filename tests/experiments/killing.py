"""A process that is killed in the middle of its training, without a chance to write anything."""

import os
import signal
from typing import Any

from lightning import Callback, LightningModule, Trainer


class Kill(Callback):
    """Kills one rank before a batch, or at the end of an epoch, before it is saved.

    Args:
        batch: counted from 0 over all epochs; that of an epoch's first batch is the end of the epoch before where `end` is set.
        rank: of the process.
        end: kill at the end of the epoch before.
    """

    def __init__(self, batch: int, rank: int = 0, end: bool = False) -> None:
        self.batch, self.rank, self.end = batch, rank, end

    def on_train_batch_start(self, trainer: Trainer, _: LightningModule, __: Any, batch_idx: int) -> None:
        """Nobody hears of it."""
        if not self.end:
            self.kill(trainer, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        """Nor of this."""
        if self.end:
            self.kill(trainer, int(trainer.num_training_batches))

    def kill(self, trainer: Trainer, done: int) -> None:
        """If it is time, after so many batches of the epoch."""
        now = trainer.current_epoch * int(trainer.num_training_batches) + done
        if now == self.batch and trainer.global_rank == self.rank:
            os.kill(os.getpid(), signal.SIGKILL)
