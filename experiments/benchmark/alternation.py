"""A language model of ours beside others that learn the same, trained in turn, epoch by epoch."""

import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks import GradientClipping, HiddenStateReset, Throughput, WeightTying
from datamodules import LanguageData
from datamodules.builtin import PythonDocs
from datamodules.recipes import Words
from datamodules.sources import Files
from experiments.benchmark.plain import CLIP, Other
from lm import LanguageModel


class Alternation(Callback):
    """Times each epoch of the Trainer, then the same epoch of each of the others, so that all see the same machine.

    Args:
        others: the other models.
    """

    def __init__(self, others: Sequence[Other]) -> None:
        self.others = others
        self.seconds: list[list[float]] = [[] for _ in range(1 + len(others))]
        self.started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the watch on the Trainer."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop it, and time the others."""
        self.seconds[0].append(time.perf_counter() - self.started)
        for other, seconds in zip(self.others, self.seconds[1:], strict=True):
            started = time.perf_counter()
            other.train_epoch(trainer.current_epoch)
            seconds.append(time.perf_counter() - started)


class Speed(NamedTuple):
    """One row of the table.

    Attributes:
        name: of the implementation.
        tokens_per_second: median over epochs.
        share: of the machine's matrix-product rate that its products alone reach.
        perplexity: of the validation text after all epochs.
        ours: how many times as fast ours is, median over epochs.
    """

    name: str
    tokens_per_second: float
    share: float
    perplexity: float
    ours: float


def compare(
    model: LanguageModel,
    data: LanguageData,
    others: Sequence[Other],
    runs: int,
    rate: float,
    regularization: Sequence[Callback] = (),
) -> list[Speed]:
    """Train ours, its embedding tied to its head, and the others for some epochs in turn.

    Args:
        model: ours.
        data: what all are trained on.
        others: what it is compared with.
        runs: epochs.
        rate: floating-point operations a second of the machine's matrix products.
        regularization: callbacks that add terms to the loss of ours.

    Returns:
        rows of ours and of each other.
    """
    alternation = Alternation(others)
    quiet: dict[str, Any] = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    with tempfile.TemporaryDirectory() as folder:
        equipment = [WeightTying(), *regularization, HiddenStateReset(), GradientClipping(norm=CLIP), Throughput(), alternation]
        logger = CSVLogger(folder)
        trainer = Trainer(
            max_epochs=runs, limit_val_batches=0, logger=logger, callbacks=equipment, enable_checkpointing=False, **quiet
        )
        trainer.fit(model, datamodule=data)
    (found,) = Trainer(logger=False, callbacks=[WeightTying()], **quiet).validate(model, datamodule=data, verbose=False)
    perplexities = [found["val/ppl"], *(other.perplexity() for other in others)]
    read = len(data.training_stream) * data.lanes * data.steps
    mine, rows = alternation.seconds[0], []
    names = ["Unroll", *(other.name for other in others)]
    for name, seconds, perplexity in zip(names, alternation.seconds, perplexities, strict=True):
        speed = read / statistics.median(seconds)
        ours = statistics.median(theirs / own for theirs, own in zip(seconds, mine, strict=True))
        rows.append(Speed(name, speed, speed * products_per_token(model) / rate, perplexity, ours))
    return rows


def products_per_token(model: LanguageModel) -> float:
    """Floating-point operations of the matrix products of one training token: twice their weights, forward and twice backward."""
    multiplied = [*model.network.layers.parameters(), *model.head.parameters()]
    return 3 * 2 * sum(weight.numel() for weight in multiplied if weight.dim() == 2)


def text_data(text: str | None, lanes: int, steps: int, tokens: int | None) -> LanguageData:
    """A file, its last tenth held out, or the English of Python's manual, as windows of words; see LanguageData."""
    source = PythonDocs() if text is None else Files(train=text, validation_fraction=0.1)
    return LanguageData(source, Words(), lanes=lanes, steps=steps, evaluation_lanes=10, max_tokens=tokens)
