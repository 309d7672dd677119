"""What a row of the translation benchmark has to be able to do."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Literal, NamedTuple

from datamodules.parallel import FileNames
from datamodules.sources import SPLITS, Split

Side = Literal["source", "target"]


class Setting(NamedTuple):
    """What all rows share.

    Attributes:
        size: of embeddings, of each direction of the encoder's GRU, and of the decoder's.
        dropout: of the inputs of both, and of what the decoder says.
        smoothing: of the labels.
        min_frequency: words that are seen less often are unknown.
        max_length: longer sentences are not trained on.
        batch_size: sentences.
        learning_rate: of Adam.
        decay: what the rate is multiplied by after each epoch.
        clip: the largest norm of a gradient.
        width: hypotheses of the beam, ranked by GNMT's score with alpha 1.
        at_once: sentences that are searched together.
    """

    size: int = 256
    dropout: float = 0.3
    smoothing: float = 0.1
    min_frequency: int = 2
    max_length: int = 60
    batch_size: int = 64
    learning_rate: float = 0.0009
    decay: float = 0.9
    clip: float = 1.0
    width: int = 5
    at_once: int = 100


SETTING = Setting()


class Parallel(NamedTuple):
    """A folder with six text files: train, validation and test, with `.source` and `.target`."""

    folder: Path

    def path(self, split: Split, side: Side) -> Path:
        """One of them."""
        return self.folder / f"{split}.{side}"

    def files(self, side: Side) -> dict[Split, FileNames]:
        """Those of one side."""
        return {split: str(self.path(split, side)) for split in SPLITS}

    def lines(self, split: Split, side: Side) -> list[str]:
        """Its lines."""
        return self.path(split, side).read_text(encoding="utf-8").splitlines()


class Contestant(ABC):
    """A model, its training and its search."""

    name: str

    @abstractmethod
    def train(self, epochs: int, batches: int | None) -> list[float]:
        """Train from new weights: target tokens a second in each epoch, or in so many batches of each."""

    @abstractmethod
    def translate(self, split: Split, width: int) -> list[str]:
        """The best translation of each sentence of a split, greedily for a width of 1."""
