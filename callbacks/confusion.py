"""Which label is taken for which: a table and a picture."""

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from callbacks.paths import run_folder
from callbacks.pictures import keep_picture
from lm.label_metrics import Confusion

MOST_NUMBERED = 20
"""Labels up to which a picture has its numbers in it."""


class ConfusionMatrix(Callback):
    """After `test` or `validate`, prints precision, recall and F1 of each label, and draws the confusion matrix.

    It is for models that keep a `confusion` of their last evaluation; of others it says nothing.

    Args:
        file: name of the picture, in the run's folder.
    """

    def __init__(self, file: str = "confusion.png") -> None:
        self.file = file

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report."""
        self.report(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Report, unless this is a validation within training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.report(trainer, pl_module)

    def report(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print and draw, on one rank."""
        path = run_folder(trainer) / self.file
        found = getattr(pl_module, "confusion", None)
        if not trainer.is_global_zero or not isinstance(found, Confusion):
            return
        Console(soft_wrap=True, highlight=False).print(confusion_table(found))
        keep_picture(trainer, confusion_figure(found), path, "confusion matrix", "confusion")


def confusion_table(found: Confusion) -> Table:
    """A row for each label: how often it is true, and how well it is told."""
    table = Table("label", *(("true", "precision", "recall", "F1")), title_justify="left")
    counts = found.counts.double().numpy()
    for number, (label, f1) in enumerate(zip(found.labels, found.f1.tolist(), strict=True)):
        right, true, told = counts[number, number], counts[number].sum(), counts[:, number].sum()
        shares = (right / told if told else 0.0, right / true if true else 0.0, f1)
        table.add_row(label, f"{int(true):,}", *(f"{share:.3f}" for share in shares))
    return table


def confusion_figure(found: Confusion) -> Figure:
    """True labels from top to bottom, what they are told to be from left to right; each row sums to one, darker is more."""
    counts = found.counts.double().numpy()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    count = len(found.labels)
    side = max(3.0, 1.5 + 0.42 * count)
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(count), found.labels, rotation=90 if max(map(len, found.labels)) * count > 24 else 0, parse_math=False)
    axes.set_yticks(range(count), found.labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="true")
    if count <= MOST_NUMBERED:
        for (row, column), number in np.ndenumerate(counts):
            if number:
                shade = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, f"{int(number)}", ha="center", va="center", color=shade, fontsize=8)
    figure.colorbar(image, label="share of the true label", shrink=0.8)
    return figure
