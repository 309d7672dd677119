"""SeriesData: a series of numbers, as windows for a model that predicts the next one."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from datamodules.loading import EpochData, EpochLoader, checksum
from datamodules.series_sources import SeriesSource
from datamodules.sources import Split, check_fractions, ends, split_to_predict
from datamodules.streams import Place, SlidingStream, Stream, StreamFactory, Window, tensor_of


class SeriesData(EpochData):
    """A series cut in the order of time: the first part trains, the next validates, the last tests.

    What is held out is predicted from all that came before it, the training part included.

    Args:
        source: of the numbers.
        lanes: windows in a training batch, over all ranks.
        steps: numbers in a window.
        stream: order of the training windows: `datamodules.streams.SlidingStream` or `SequentialStream`.
        validation_fraction: share of the series that validates.
        test_fraction: share of the series that tests, at its end.
        predict_split: what `predict` reads; null for the test split, or the validation split where there is none.
        seed: of everything the stream draws.

    Raises:
        ValueError: if the fractions leave nothing to train on.
    """

    def __init__(
        self,
        source: SeriesSource,
        lanes: int = 20,
        steps: int = 4,
        stream: StreamFactory = SlidingStream,
        validation_fraction: float = 0.0,
        test_fraction: float = 0.4,
        predict_split: Split | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.lanes = lanes
        self.steps = steps
        self.stream = stream
        self.validation_fraction = validation_fraction
        self.test_fraction = test_fraction
        self.predict_split = predict_split
        self.seed = seed
        check_fractions(self)

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.source}"  # Lightning's would look for DataLoaders in the loaders

    @cached_property
    def series(self) -> np.ndarray:
        """The whole series, `(time,)`."""
        return self.source.values()

    @property
    def parts(self) -> dict[Split, range]:
        """The positions of each split that is not empty, counted from 0; the first value of all is predicted from nothing."""
        stop, end = ends(len(self.series), self.validation_fraction, self.test_fraction)
        parts: dict[Split, range] = {
            "train": range(1, stop),
            "validation": range(max(1, stop), end),
            "test": range(max(1, end), len(self.series)),
        }
        return {split: positions for split, positions in parts.items() if positions}

    @property
    def training_values(self) -> np.ndarray:
        """The part that trains, `(time,)`."""
        return self.series[: ends(len(self.series), self.validation_fraction, self.test_fraction)[0]]

    @property
    def contiguous(self) -> bool:
        """Whether a training window continues the one before."""
        return self.training_stream.contiguous

    def setup(self, stage: str) -> None:
        """Refuse a series that is too short, before anything runs."""
        if stage == "fit":
            _ = self.training_stream

    @cached_property
    def training_stream(self) -> Stream:
        """The stream of training windows; one object for the whole run, so that its position is saved and restored."""
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return self.stream(self.training_values, self.lanes, self.steps, Place(self.seed, *ranks))

    def train_dataloader(self) -> Stream:
        """Windows of the training part."""
        return self.training_stream

    def whole(self, split: Split) -> "list[WholePast]":
        """The series up to the end of a split, as one batch; none if there is no such split."""
        return [WholePast(self.series, self.parts[split])] if split in self.parts else []

    def val_dataloader(self) -> "list[WholePast]":
        """The validation part behind its past."""
        return self.whole("validation")

    def test_dataloader(self) -> "list[WholePast]":
        """The test part behind its past."""
        return self.whole("test")

    def predict_dataloader(self) -> "list[WholePast]":
        """The part that is predicted behind its past. Raises ValueError if `predict_split` is not there."""
        predicted = split_to_predict(self.predict_split, self.parts)
        return [] if predicted is None else self.whole(predicted)


class WholePast(EpochLoader[Window]):
    """One batch: a series from its beginning, whose targets are the last part alone. Every rank reads all of it.

    Args:
        series: `(time,)`.
        targets: positions in it.
    """

    def __init__(self, series: np.ndarray, targets: range) -> None:
        super().__init__(seed=0)
        self.series, self.targets = series[: targets.stop], targets

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        return {"targets": [self.targets.start, self.targets.stop], "series": checksum(self.series)}

    def __len__(self) -> int:
        return 1

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        values = tensor_of(self.series)[None]
        mask = torch.arange(1, values.shape[1]) >= self.targets.start
        window = Window(values[:, :-1], values[:, 1:], mask[None].float())
        return [window].__getitem__
