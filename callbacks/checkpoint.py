"""Which weights are kept."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from callbacks.paths import run_folder
from lm.base import SequenceModule
from lm.checkpoint_file import read_file

NEW, LAST, PREVIOUS = "new.ckpt", "last.ckpt", "previous.ckpt"


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the best validation; without validation, of the latest epoch.

    One of several is `best-epoch=3-step=120.ckpt`, for an epoch may have several validations.

    Args:
        dirpath: folder of the checkpoints; null for Lightning's choice.
        monitor: the metric that says which is the best; null for the module's own, perplexity or BLEU.
        mode: whether the lowest or the highest value of a metric that is given here is the best.
        keep: how many of the best to keep.
    """

    def __init__(
        self,
        dirpath: str | Path | None = None,
        monitor: str | None = None,
        mode: Literal["min", "max"] = "min",
        keep: int = 1,
    ) -> None:
        name = "best" if keep == 1 else "best-{epoch}-{step}"
        self.chosen = None if monitor is None else (monitor, mode)
        self.keep = keep
        first = monitor or SequenceModule.BEST[0]  # without any, several would be refused before the module is known
        super().__init__(dirpath, filename=name, monitor=first, mode=mode, save_top_k=keep, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See which metric there will be: a monitored one that is never logged ends a run."""
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        validated = data is not None and data.val_dataloader() and trainer.limit_val_batches
        best = self.chosen or (pl_module.BEST if isinstance(pl_module, SequenceModule) else None)
        if validated and best:
            self.monitor, self.mode = best
            self.kth_value = torch.tensor(torch.inf if self.mode == "min" else -torch.inf)
            self.save_top_k = self.keep
        else:
            self.monitor, self.save_top_k = None, min(self.keep, 1)  # of several, all epochs would be kept


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt`, to resume from, and `previous.ckpt`, the one before, should the last be damaged.

    It is written at the end of every epoch; at other times only after a whole step of the optimizer, and after the validation
    that follows it, which a resumed run would not make up for.

    Args:
        dirpath: folder of the checkpoints; null for `checkpoints` in the run's folder.
        every_n_steps: write it after so many steps of the optimizer too; null for the ends of epochs alone.

    Raises:
        ValueError: if the interval is not positive.
    """

    def __init__(self, dirpath: str | Path | None = None, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"LastCheckpoint: every_n_steps counts from 1, got {every_n_steps}")
        self.dirpath = dirpath
        self.every_n_steps = every_n_steps
        self.folder = Path(dirpath or "checkpoints")
        self.saved_at = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn where to write; later a rank could not ask by itself, for all of them answer together."""
        self.folder = Path(self.dirpath or run_folder(trainer) / "checkpoints")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What a run begins with is not written."""
        self.saved_at = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Write it if it is time; between the batches of one step there would be gradients to keep."""
        if self.due(trainer) and not validation_follows(trainer, batch_idx):
            self.save(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it if it was time before."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking and self.due(trainer):
            self.save(trainer)

    def due(self, trainer: Trainer) -> bool:
        """Whether it is to be written after this step, and has not been. The last step of an epoch waits for the epoch's end.

        A run resumed between the two would begin the next epoch without what ends the one and begins the other.
        """
        step = trainer.global_step
        if self.every_n_steps is None or trainer.is_last_batch:
            return False
        return step != self.saved_at and step % self.every_n_steps == 0

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        self.save(trainer)

    def save(self, trainer: Trainer) -> None:
        """Write the new one before the old ones move."""
        new, last = self.folder / NEW, self.folder / LAST
        trainer.save_checkpoint(new, weights_only=False)
        if trainer.is_global_zero:
            if last.exists():
                last.replace(self.folder / PREVIOUS)
            new.replace(last)
        self.saved_at = trainer.global_step


def validation_follows(trainer: Trainer, batch: int) -> bool:
    """Whether a validation comes before the next batch."""
    every = trainer.val_check_batch if trainer.enable_validation else None
    epochs = trainer.check_val_every_n_epoch
    number = batch if epochs else trainer.fit_loop.total_batch_idx
    this_epoch = not epochs or (trainer.current_epoch + 1) % epochs == 0
    return this_epoch and isinstance(every, int) and (number + 1) % every == 0


def to_resume_from(folder: Path) -> Path | None:
    """The last checkpoint of a folder that can be read; None where there is none.

    Raises:
        ValueError: if all of them are damaged.
    """
    damaged: list[ValueError] = []
    for path in (folder / LAST, folder / PREVIOUS):
        if path.exists():
            try:
                read_file(path)
            except ValueError as error:
                damaged.append(error)
                continue
            if damaged:
                rank_zero_warn(f"{damaged[0]}; this run goes on from the one before, {path}")
            return path
    if damaged:
        raise damaged[0]
    return None
