"""Predictions beside what was true, in a file one can read."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from lm.module import LanguageModel


class WritePredictions(BasePredictionWriter):
    """Writes `predictions.tsv` into the run's folder: one line a token, the true one and the predicted one.

    Args:
        file: its name; with several ranks each writes its own, with its number before the ending.
    """

    def __init__(self, file: str = "predictions.tsv") -> None:
        super().__init__(write_interval="batch")
        self.file = file
        self.path: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the file."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(self.file)
        self.path = folder / (self.file if trainer.world_size == 1 else f"{name.stem}.{trainer.global_rank}{name.suffix}")
        self.path.write_text("target\tpredicted\n", encoding="utf-8")

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Any,
        batch_indices: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Add a batch, lane by lane."""
        assert self.path is not None
        tokenizer = pl_module.tokenizer if isinstance(pl_module, LanguageModel) else None
        with self.path.open("a", encoding="utf-8") as file:
            for target, predicted in zip(prediction["targets"].tolist(), prediction["predicted"].tolist(), strict=True):
                row = tokenizer.tokens([target, predicted]) if tokenizer else [str(target), str(predicted)]
                file.write("\t".join(row) + "\n")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the file lies."""
        print(f"predictions: {self.path}")
