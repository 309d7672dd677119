"""How well labels are predicted: accuracy, F1, and which is taken for which."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score


class Confusion(NamedTuple):
    """An evaluation, label by label.

    Attributes:
        labels: their names.
        counts: `(labels, labels)`: how often the label of the row was told to be that of the column.
        f1: `(labels,)` F1 of each.
    """

    labels: list[str]
    counts: Tensor
    f1: Tensor


class LabelMetrics(MetricCollection):
    """Accuracy, macro F1, F1 of each label, and the confusion matrix, exact over batches and ranks.

    Args:
        label_count: different labels.
    """

    def __init__(self, label_count: int) -> None:
        super().__init__(
            {
                "accuracy": MulticlassAccuracy(label_count, average="micro"),
                "f1": MulticlassF1Score(label_count, average="macro"),
                "each": MulticlassF1Score(label_count, average="none"),
                "counts": MulticlassConfusionMatrix(label_count),
            }
        )

    def finish(self, labels: list[str]) -> tuple[Mapping[str, Tensor], Confusion]:
        """The scores by name, and what they are of each label; begins anew."""
        found = self.compute()
        self.reset()
        return {name: found[name] for name in ("accuracy", "f1")}, Confusion(labels, found["counts"].cpu(), found["each"].cpu())
