"""Translations of a split, in a file with a line for each sentence."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter


class WriteTranslations(BasePredictionWriter):
    """Writes `translations.txt` into the run's folder, in the order of the split.

    Args:
        file: its name; with several ranks each writes its own, with its number before the ending, and the number of a sentence
            and a tab before each line.
    """

    def __init__(self, file: str = "translations.txt") -> None:
        super().__init__(write_interval="epoch")
        self.file = file

    def write_on_epoch_end(self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any) -> None:
        """Put the sentences in order."""
        folder = Path(trainer.log_dir or trainer.default_root_dir)
        folder.mkdir(parents=True, exist_ok=True)
        found: dict[int, str] = {}
        for batch in predictions:
            found |= dict(zip(batch["indices"], batch["texts"], strict=True))
        name, alone = Path(self.file), trainer.world_size == 1
        path = folder / (self.file if alone else f"{name.stem}.{trainer.global_rank}{name.suffix}")
        lines = [text if alone else f"{index}\t{text}" for index, text in sorted(found.items())]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        print(f"translations: {path}")
