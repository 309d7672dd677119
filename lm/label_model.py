"""LabelModel: what models share that say which label something has."""

from collections.abc import Mapping

from torch import Tensor

from datamodules.tokenizers import Tokenizer
from lm.base import OptimizerFactory, SequenceModule
from lm.label_metrics import Confusion, LabelMetrics
from lm.metrics import TokenMetrics
from lm.schedule import Schedule


class LabelModel(SequenceModule):
    """A model of labels: how training goes, and how well each label is told.

    Args:
        label_count: different labels.
        optimizer: makes the optimizer from the parameters.
        schedule: the learning-rate schedule; None for a constant rate.

    Attributes:
        confusion: the last evaluation, label by label; None before the first.
    """

    BEST = ("val/accuracy", "max")
    TOKENIZERS = ("tokenizer", "labels")
    tokenizer: Tokenizer | None
    labels: Tokenizer | None

    def __init__(self, label_count: int, optimizer: OptimizerFactory, schedule: Schedule | None) -> None:
        super().__init__(optimizer, schedule)
        self.label_count = label_count
        self.train_metrics = TokenMetrics()
        self.losses = TokenMetrics()
        self.label_metrics = LabelMetrics(label_count)
        self.confusion: Confusion | None = None

    def label_names(self) -> list[str]:
        """The labels by their ids; numbers where it was trained on tensors alone."""
        ids = range(self.label_count)
        return [str(number) for number in ids] if self.labels is None else self.labels.tokens(ids)

    def on_train_epoch_end(self) -> None:
        """Log the loss of the epoch, over all that it told, and the perplexity."""
        found = self.train_metrics.compute()
        self.train_metrics.reset()
        self.log_dict({"train/nll": found["loss"], "train/ppl_epoch": found["ppl"]}, sync_dist=True)

    def other_scores(self) -> Mapping[str, Tensor]:
        """Scores of an evaluation besides those of labels, by name; their metrics begin anew."""
        return {}

    def log_evaluation(self, stage: str) -> None:
        """Log the metrics of an evaluation under its name."""
        losses = self.losses.compute()
        self.losses.reset()
        scores, self.confusion = self.label_metrics.finish(self.label_names())
        for name, value in {"loss": losses["loss"], "ppl": losses["ppl"], **scores, **self.other_scores()}.items():
            self.log(f"{stage}/{name}", value.float(), prog_bar=name == "accuracy", sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Log `val/loss`, `val/ppl`, `val/accuracy` and `val/f1`, the mean of those of all labels, and what else there is."""
        self.log_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the same for the test."""
        self.log_evaluation("test")
