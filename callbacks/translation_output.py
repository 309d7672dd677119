"""Translations of a split, in a file with a line for each sentence."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from callbacks.paths import run_folder
from datamodules.translation import TranslationData


class WriteTranslations(BasePredictionWriter):
    """Writes `translations.txt` into the run's folder: line n translates line n of the split.

    A pair that was left out, because one of its sides is empty, keeps its place: its line is blank.

    Args:
        file: its name; with several ranks each writes its own, with its number before the ending, and the number of a sentence
            and a tab before each line.
    """

    def __init__(self, file: str = "translations.txt") -> None:
        super().__init__(write_interval="epoch")
        self.file = file

    def write_on_epoch_end(self, trainer: Trainer, pl_module: LightningModule, predictions: Any, batch_indices: Any) -> None:
        """Put the sentences in order."""
        folder = run_folder(trainer)
        folder.mkdir(parents=True, exist_ok=True)
        blank = gaps(trainer)
        found: dict[int, str] = {}
        for batch in predictions:
            found |= dict(zip(batch["indices"], batch["texts"], strict=True))
        kept = sorted(set(range(max(found, default=-1) + 1 + len(blank))) - blank)
        lines = {kept[index]: text for index, text in found.items()}
        if trainer.is_global_zero:
            lines |= dict.fromkeys(blank, "")
        name, alone = Path(self.file), trainer.world_size == 1
        path = folder / (self.file if alone else f"{name.stem}.{trainer.global_rank}{name.suffix}")
        written = [text if alone else f"{number}\t{text}" for number, text in sorted(lines.items())]
        path.write_text("".join(" ".join(line.split("\n")) + "\n" for line in written), encoding="utf-8")
        print(f"translations: {path}" + (f", blank where one of {len(blank)} pairs has an empty side" if blank else ""))


def gaps(trainer: Trainer) -> set[int]:
    """Numbers of the pairs that the predicted split has and that were left out."""
    data = getattr(trainer, "datamodule", None)
    if not isinstance(data, TranslationData) or data.predicted is None:
        return set()
    return set(data.corpus.splits[data.predicted].gaps)
