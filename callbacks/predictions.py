"""Predictions beside what was true, in a file one can read."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from callbacks.paths import run_folder
from lm.prediction import Prediction

ESCAPED = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


class WritePredictions(BasePredictionWriter):
    """Writes `predictions.tsv` into the run's folder: a heading, and a line for each thing that a model predicts.

    A tab or an end of line within a column is written as `\\t` or `\\n`, and a backslash twice. What `predict_step` returns and
    is no Prediction, as of a model of one's own, is left to others.

    Args:
        file: its name; with several ranks each writes its own, with its number before the ending.
    """

    def __init__(self, file: str = "predictions.tsv") -> None:
        super().__init__(write_interval="batch")
        self.file = file
        self.path: Path | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin anew."""
        self.path = None

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
        """Add a batch."""
        if not isinstance(prediction, Prediction):
            return
        rows = prediction.rows
        if self.path is None:
            self.path = self.begin(trainer)
            rows = [prediction.columns, *rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.writelines("\t".join(text.translate(ESCAPED) for text in row) + "\n" for row in rows)

    def begin(self, trainer: Trainer) -> Path:
        """The path of an empty file."""
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        name = Path(self.file)
        path = folder / (self.file if trainer.world_size == 1 else f"{name.stem}.{trainer.global_rank}{name.suffix}")
        path.write_text("", encoding="utf-8")
        return path

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say where the file lies."""
        if self.path is not None:
            print(f"predictions: {self.path}")
