"""What data modules of labelled examples share: their batches, and which split they are of."""

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Generic

import numpy as np

from datamodules.bucketing import alone
from datamodules.examples import Batch, Collate, ExampleBatches
from datamodules.loading import EpochData
from datamodules.sources import Split, split_to_predict
from datamodules.streams import Place
from datamodules.tokenizers import Tokenizer


class ExampleData(EpochData, Generic[Batch]):
    """A corpus of labelled examples as batches.

    Args:
        source: of the examples, already split.
        batch_size: examples of a training batch, over all ranks.
        evaluation_batch_size: the same for an evaluation; None for as many as in training.
        pool: how many training batches are sorted by length together.
        predict_split: what `predict` reads; None for the test split, or the validation split where there is none.
        seed: of the order of the training examples.
    """

    def __init__(
        self,
        source: Any,
        batch_size: int,
        evaluation_batch_size: int | None,
        pool: int,
        predict_split: Split | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.source = source
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size or batch_size
        self.pool = pool
        self.predict_split = predict_split
        self.seed = seed

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.source}"  # Lightning's would look for DataLoaders in the loaders

    @property
    @abstractmethod
    def tokenizer(self) -> Tokenizer:
        """Of what is read, trained on the training split."""

    @property
    @abstractmethod
    def labels(self) -> Tokenizer:
        """A token for each label."""

    @property
    @abstractmethod
    def splits(self) -> Sequence[Split]:
        """Which splits there are."""

    @abstractmethod
    def batches(self, split: Split, *, train: bool) -> ExampleBatches[Batch]:
        """The examples of a split: shuffled for training, else in their order."""

    def batches_of(
        self, lengths: np.ndarray, predicted: np.ndarray, collate: Collate[Batch], *, train: bool
    ) -> ExampleBatches[Batch]:
        """Batches of these settings; see ExampleBatches."""
        place = Place(self.seed, self.trainer.global_rank, self.trainer.world_size) if self.trainer else Place(self.seed)
        size, group = (self.batch_size, self.accumulated) if train else (self.evaluation_batch_size, alone)
        return ExampleBatches(lengths, predicted, size, collate, place, pool=self.pool, shuffle=train, group=group)

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return len(self.tokenizer)

    @property
    def label_count(self) -> int:
        """Different labels."""
        return len(self.labels)

    @cached_property
    def training_batches(self) -> ExampleBatches[Batch]:
        """The training batches; one object for the whole run, so that its position is saved and restored."""
        return self.batches("train", train=True)

    def train_dataloader(self) -> ExampleBatches[Batch]:
        """Batches of the training split."""
        return self.training_batches

    def evaluation_batches(self, split: Split | None) -> list[ExampleBatches[Batch]]:
        """Batches of a whole split; none if there is no such split."""
        return [self.batches(split, train=False)] if split is not None and split in self.splits else []

    def val_dataloader(self) -> list[ExampleBatches[Batch]]:
        """Batches of the validation split."""
        return self.evaluation_batches("validation")

    def test_dataloader(self) -> list[ExampleBatches[Batch]]:
        """Batches of the test split."""
        return self.evaluation_batches("test")

    def predict_dataloader(self) -> list[ExampleBatches[Batch]]:
        """Batches of the split that is predicted. Raises ValueError if `predict_split` is not there."""
        return self.evaluation_batches(split_to_predict(self.predict_split, self.splits))
