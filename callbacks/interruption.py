"""Runs that stop when a signal asks them to, with everything saved."""

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from callbacks.checkpoint import LAST, LastCheckpoint, validation_follows
from callbacks.paths import shown

Handler = Callable[[int, FrameType | None], Any] | int | None


class StoppedError(RuntimeError):
    """Training has stopped because a signal asked for it, and is saved."""


class StopOnSignal(Checkpoint):  # which Lightning calls after other callbacks, whose state it saves
    """Writes the last checkpoint and stops, with an exception, when a signal asks for it.

    Slurm sends SIGUSR1 before a job's time is over, and SIGTERM when another job takes its place or somebody ends it.
    The handler does no more than note the signal. After a step of the optimizer, now and then, the ranks ask one another whether
    any has noted one; then they write the checkpoint together, and stop before the next batch, when the step is in the logs too.
    Where a validation or the end of an epoch comes in between, which a resumed run would not make up for, they go on for one more
    step.

    Args:
        seconds: about how often several ranks ask one another, if their steps are not longer.

    Raises:
        ValueError: if the time is negative.
    """

    def __init__(self, seconds: float = 5.0) -> None:
        if seconds < 0:
            raise ValueError(f"StopOnSignal: ranks ask one another every few seconds, got {seconds}")
        self.seconds = seconds
        self.noted: signal.Signals | None = None
        self.agreed = False
        self.saved: Path | None = None
        self.step = self.asked_at = self.asks_at = 0
        self.asked = 0.0
        self.former: Handler = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find who writes the last checkpoint."""
        writers = [part for part in trainer.checkpoint_callbacks if isinstance(part, LastCheckpoint)]
        self.writer = writers[0] if writers else LastCheckpoint()
        if not writers:
            self.writer.setup(trainer, pl_module, stage)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to SIGUSR1 from here on, and for good: it would end a process that has only its logs to finish."""
        self.noted, self.agreed, self.saved = None, False, None
        self.listen(signal.SIGUSR1)

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to SIGTERM from here on, for which Lightning has just set a handler that waits for other ranks."""
        self.former = self.former or self.listen(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen, and count steps from here."""
        self.former = self.former or self.listen(signal.SIGTERM)
        self.step = self.asked_at = self.asks_at = trainer.global_step
        self.asked = time.monotonic()

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
        if trainer.world_size == 1:
            self.agreed = self.noted is not None
        elif self.step >= self.asks_at:
            self.agreed |= self.ask(trainer)
        if self.agreed and not evaluation_follows(trainer, batch_idx):
            self.writer.save(trainer)
            self.saved = self.writer.folder / LAST

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listen to SIGTERM no more; Lightning takes its own handler away soon."""
        self.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """The same."""
        self.close()

    def ask(self, trainer: Trainer) -> bool:
        """Whether any rank has noted a signal; and agree when to ask next, by the time that the slowest one takes for a step."""
        now = time.monotonic()
        step_time = (now - self.asked) / max(1, self.step - self.asked_at)
        own = torch.tensor([self.noted is not None, step_time], device=trainer.strategy.root_device)
        noted, slowest = trainer.strategy.reduce(own, reduce_op="max").tolist()
        self.asked, self.asked_at = now, self.step
        self.asks_at = self.step + max(1, int(self.seconds / slowest))
        return bool(noted)

    def listen(self, number: signal.Signals) -> Handler:
        """Set the handler of a signal, which Python allows in its main thread alone; the one before."""
        return signal.signal(number, self.note) if threading.current_thread() is threading.main_thread() else None

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler."""
        self.noted = signal.Signals(number)

    def close(self) -> None:
        """Set the handler of SIGTERM that was there before."""
        if self.former is not None:
            signal.signal(signal.SIGTERM, self.former)
            self.former = None


def evaluation_follows(trainer: Trainer, batch: int) -> bool:
    """Whether a validation or the end of the epoch comes before the next batch, and not after every step alike."""
    every = trainer.val_check_batch
    every_step = every is not None and every <= trainer.accumulate_grad_batches
    return trainer.is_last_batch or (validation_follows(trainer, batch) and not every_step)
