"""Which weights are kept."""

from pathlib import Path
from typing import Any, Literal

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lm.base import SequenceModule


class BestCheckpoint(ModelCheckpoint):
    """Keeps `best.ckpt`, of the best validation; without validation, of the latest epoch. One of several is `best-epoch=3.ckpt`.

    Args:
        dirpath: folder of the checkpoints; null for Lightning's choice.
        monitor: the metric that says which is the best.
        mode: whether its lowest or its highest value is.
        keep: how many of the best to keep.
    """

    def __init__(
        self, dirpath: str | Path | None = None, monitor: str = "val/ppl", mode: Literal["min", "max"] = "min", keep: int = 1
    ) -> None:
        name = "best" if keep == 1 else "best-{epoch}"
        super().__init__(dirpath, filename=name, monitor=monitor, mode=mode, save_top_k=keep, enable_version_counter=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See whether there will be such a metric: a monitored one that is never logged ends a run."""
        super().setup(trainer, pl_module, stage)
        data: Any = getattr(trainer, "datamodule", None)
        validated = data is not None and data.val_dataloader() and trainer.limit_val_batches
        if not (validated and isinstance(pl_module, SequenceModule)):
            self.monitor = None


class LastCheckpoint(ModelCheckpoint):
    """Keeps `last.ckpt`, to resume from; ModelCheckpoint's own `save_last` is only as new as its best one.

    Args:
        dirpath: folder of the checkpoints; null for Lightning's choice.
    """

    def __init__(self, dirpath: str | Path | None = None) -> None:
        super().__init__(dirpath, filename="last", enable_version_counter=False)
