"""Which weights are kept."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lm.base import SequenceModule


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


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, to resume from; ModelCheckpoint's own `save_last` is only as new as its best one.

    Args:
        dirpath: folder of the checkpoints; null for Lightning's choice.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(dirpath, filename="last", enable_version_counter=False)
