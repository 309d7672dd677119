"""How a model predicts a text that it is evaluated on: as it was trained, or with what it learns from the text as it reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor

from datamodules.streams import CompleteStream, Window

if TYPE_CHECKING:
    from lm.module import LanguageModel


class Reading(NamedTuple):
    """What was predicted of a window.

    Attributes:
        nll: −log p of each target in nats, `(lanes, targets)`.
        correct: whether each target was the most probable word; None where only the probabilities of the targets are known.
        raw: states of the last layer before dropout, `(lanes, time, features)`.
    """

    nll: Tensor
    correct: Tensor | None
    raw: Tensor


Reader = Callable[[Window], Reading]
"""Reads the windows of one text, each once and in their order."""


class Text(NamedTuple):
    """A text to be read.

    Attributes:
        stage, loader: what a model keeps its state under while it reads: `val` or `test`, and the number of the loader.
        windows: all of the text.
    """

    stage: str
    loader: int
    windows: Iterable[Window]

    def in_order(self, reader: str) -> CompleteStream:
        """The windows, which continue one another.

        Raises:
            TypeError: if it is not known that they do.
        """
        if not isinstance(self.windows, CompleteStream):
            raise TypeError(
                f"evaluation: {reader} follows a text from window to window, and a {type(self.windows).__name__} may hold them in"
                " any order: give the trainer datamodules.LanguageData, or a datamodules.streams.CompleteStream"
            )
        return self.windows


@dataclass(kw_only=True)
class Evaluation(ABC):
    """How the words of a text are predicted where a model is evaluated: a dataclass, which a checkpoint can describe."""

    @abstractmethod
    def begin(self, model: "LanguageModel", text: Text) -> Reader:
        """What reads a text from its start; the model itself comes out of it unchanged.

        Raises:
            ValueError, TypeError: if this model or this text cannot be read so.
        """


@dataclass(kw_only=True)
class StaticEvaluation(Evaluation):
    """The model as it was trained."""

    def begin(self, model: "LanguageModel", text: Text) -> Reader:
        """See Evaluation."""
        model.states.pop((text.stage, text.loader), None)

        def read(window: Window) -> Reading:
            output, loss = model.window_loss(window, text.stage, text.loader)
            return Reading(loss.nll, loss.correct, output.raw)

        return read


def check_reads_on(model: "LanguageModel", reader: str) -> None:
    """Refuse a model for which a window does not continue the one before, or which predicts some words only.

    Raises:
        ValueError: if it is one.
    """
    if not model.carry or model.loss_at != "every":
        raise ValueError(
            f"evaluation: {reader} follows a text from word to word, and this model has carry={model.carry} and"
            f" loss_at={model.loss_at}: leave model.evaluation out, or set model.carry true and model.loss_at every"
        )
