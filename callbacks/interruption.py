"""Runs that stop when a signal asks them to, with everything saved."""

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.checkpoint import LAST, LastCheckpoint
from callbacks.report import shown

SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
"""What a job is sent before its time limit, if it asked for it, and when another one takes its place or somebody ends it."""

Handler = Callable[[int, FrameType | None], Any] | int | None


class StoppedError(RuntimeError):
    """Training has stopped because a signal asked for it, and is saved."""


class StopOnSignal(Checkpoint):  # which Lightning calls after other callbacks, whose state it saves
    """Writes the last checkpoint and stops, with an exception, when SIGUSR1 or SIGTERM asks for it.

    The handler does no more than note the signal. After a step of the optimizer the ranks ask one another whether any has noted
    one; then they write the checkpoint together, and stop before the next batch, when the step is in the logs too. Where a
    validation or the end of an epoch comes in between, which a resumed run would not make up for, they go on for one more step.

    Args:
        every_n_steps: of the optimizer, how often several ranks ask one another.

    Raises:
        ValueError: if the interval is not positive.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        if every_n_steps < 1:
            raise ValueError(f"StopOnSignal: every_n_steps counts from 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.noted: signal.Signals | None = None
        self.agreed = False
        self.saved: Path | None = None
        self.step = 0
        self.handlers: dict[signal.Signals, Handler] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find who writes the last checkpoint."""
        writers = [part for part in trainer.checkpoint_callbacks if isinstance(part, LastCheckpoint)]
        self.writer = writers[0] if writers else LastCheckpoint()
        if not writers:
            self.writer.setup(trainer, pl_module, stage)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen from here on, for Lightning has just set handlers of its own, which wait for other ranks in the handler."""
        self.listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, and count steps from here."""
        self.listen()
        self.step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop, if everything is saved.

        Raises:
            StoppedError: to stop.
        """
        if self.saved is not None:
            by = "a signal to another process" if self.noted is None else self.noted.name
            raise StoppedError(f"training: stopped by {by} after step {trainer.global_step}; all of it is in {shown(self.saved)}")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save, if it is time to stop."""
        within_a_step, self.step = self.step == trainer.global_step, trainer.global_step
        if within_a_step:
            return
        if trainer.world_size == 1 or self.step % self.every_n_steps == 0:
            self.agreed |= trainer.strategy.reduce_boolean_decision(self.noted is not None, all=False)
        if self.agreed and not evaluation_follows(trainer, batch_idx):
            self.writer.save(trainer)
            self.saved = self.writer.folder / LAST

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen no more; before Lightning puts back the handlers that were there before its own."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Listen no more."""
        self.close()

    def listen(self) -> None:
        """Set the handlers, which Python allows in its main thread alone."""
        if not self.handlers and threading.current_thread() is threading.main_thread():
            self.handlers = {number: signal.signal(number, self.note) for number in SIGNALS}

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.noted = signal.Signals(number)

    def close(self) -> None:
        """Set the handlers that were there before."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


def evaluation_follows(trainer: Trainer, batch: int) -> bool:
    """Whether a validation or the end of the epoch comes before the next batch, and not after every step alike."""
    every = trainer.val_check_batch if trainer.enable_validation else None
    number = batch if trainer.check_val_every_n_epoch else trainer.fit_loop.total_batch_idx
    validates = isinstance(every, int) and every > trainer.accumulate_grad_batches and (number + 1) % every == 0
    return trainer.is_last_batch or validates
