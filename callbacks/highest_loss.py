"""The texts that a classifier is most wrong about."""

import heapq
from typing import Any

from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from callbacks.paths import run_folder
from callbacks.predictions import ESCAPED
from lm.classification import Classifier
from lm.continuation import of_all_ranks

Example = tuple[float, int, str, str]
"""−log P of the label, the number of the text, its label, and itself."""


class HighestLoss(Callback):
    """After a test, writes the texts with the highest loss into the run's folder, the worst first, and prints a few.

    Args:
        count: how many.
        shown: how many of them to print.
        file: name of the file, of columns with tabs between them.

    Raises:
        ValueError: if a count is not positive.
    """

    def __init__(self, count: int = 20, shown: int = 3, file: str = "highest_loss.tsv") -> None:
        if count < 1 or shown < 0:
            raise ValueError(f"HighestLoss: count counts from 1 and shown from 0, got {count=}, {shown=}")
        self.count = count
        self.shown = shown
        self.file = file
        self.worst: list[Example] = []

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a model that reads no texts; begin anew."""
        if not isinstance(pl_module, Classifier):
            raise TypeError(f"HighestLoss needs a Classifier, which labels texts; {type(pl_module).__name__} does not")
        self.worst = []

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Keep the worst so far."""
        assert isinstance(pl_module, Classifier)
        assert isinstance(outputs, Tensor)
        names = pl_module.label_names()
        found = [
            (loss, index, names[label], text)
            for loss, index, label, text in zip(
                outputs.tolist(), batch.indices.tolist(), batch.labels.tolist(), batch.texts, strict=True
            )
            if index >= 0
        ]
        self.worst = heapq.nlargest(self.count, [*self.worst, *found])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write those of all ranks, on one."""
        folder = run_folder(trainer)
        worst = heapq.nlargest(self.count, [example for examples in of_all_ranks(self.worst) for example in examples])
        if not trainer.is_global_zero:
            return
        folder.mkdir(parents=True, exist_ok=True)
        rows = [("loss", "target", "text"), *((f"{loss:.3f}", label, text) for loss, _, label, text in worst)]
        with (folder / self.file).open("w", encoding="utf-8") as file:
            file.writelines("\t".join(part.translate(ESCAPED) for part in row) + "\n" for row in rows)
        for loss, label, text in rows[1 : self.shown + 1]:
            print(f"loss {loss}, is {label}: {text[:100]}")
        print(f"highest losses: {folder / self.file}")
