"""The average of the best checkpoints."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from callbacks.nt_asgd import RAW
from callbacks.paths import shown
from lm.checkpoint_file import AtomicCheckpointIO, read_checkpoint


class CheckpointAverage(Callback):
    """Writes, when training ends, `average.ckpt`: the mean of the weights of the checkpoints kept (Vaswani et al. 2017, §6.1).

    For `callbacks.BestCheckpoint` with `keep`, or any ModelCheckpoint that keeps several. It generates, scores and translates as
    they do, and cannot be resumed from.

    Args:
        file: name of the average, beside the others.
    """

    def __init__(self, file: str = "average.ckpt") -> None:
        self.file = file

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to average one.

        Raises:
            ValueError: if no callback keeps several checkpoints.
        """
        if stage == "fit" and not self.keepers(trainer):
            raise ValueError(
                "CheckpointAverage: no callback keeps several checkpoints; add callbacks.BestCheckpoint with keep: 5"
            )

    def keepers(self, trainer: Trainer) -> list[ModelCheckpoint]:
        """The callbacks that keep more than one."""
        kept = [part for part in trainer.checkpoint_callbacks if isinstance(part, ModelCheckpoint)]
        return [part for part in kept if part.save_top_k not in (0, 1)]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average, after the last checkpoint is written."""
        if not trainer.is_global_zero:
            return
        for keeper in self.keepers(trainer):
            if paths := sorted(keeper.best_k_models):
                path = Path(paths[0]).with_name(self.file)
                write_average(paths, path)
                print(f"average of {len(paths)} checkpoints: {shown(path)}", flush=True)


def write_average(paths: Sequence[str | Path], to: Path) -> None:
    """Write a checkpoint whose weights are the mean of others'; in all else but its training it is like the first of them.

    Raises:
        ValueError: if they are not of one model and vocabulary.
    """
    first = read_checkpoint(paths[0])
    total: dict[str, Tensor] = {}
    for path in paths:
        checkpoint = read_checkpoint(path)
        if shape(checkpoint) != shape(first) or checkpoint["tokenizers"] != first["tokenizers"]:
            raise ValueError(f"average: {path} has other weights or another vocabulary than {paths[0]}; give those of one model")
        for name, value in checkpoint["state_dict"].items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + value.double()
    first["state_dict"] = {name: (total[name] / len(paths)).to(value.dtype) for name, value in first["state_dict"].items()}
    for name in ("optimizer_states", "lr_schedulers", "callbacks", "loops", RAW):
        first.pop(name, None)
    AtomicCheckpointIO().save_checkpoint(first, to)


def shape(checkpoint: dict[str, Any]) -> dict[str, torch.Size]:
    """The shape of each weight."""
    return {name: value.shape for name, value in checkpoint["state_dict"].items()}
