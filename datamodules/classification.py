"""ClassificationData: labelled texts from a source, as batches for a classifier."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from datamodules.example_data import ExampleData
from datamodules.examples import ExampleBatches
from datamodules.label_batches import ClassificationBatch
from datamodules.labelled import LabelledSource
from datamodules.labelled_corpus import LabelledCorpus
from datamodules.language import DEFAULT_CACHE
from datamodules.recipes import TokenizerRecipe, Words
from datamodules.sources import Split
from datamodules.tokenizers import Tokenizer


class ClassificationData(ExampleData[ClassificationBatch]):
    """A corpus of labelled texts as batches.

    Args:
        source: of the texts, already split.
        tokenizer: recipe of the tokenizer, trained on the training split; null for words separated by spaces.
        batch_size: texts of a training batch, over all ranks.
        evaluation_batch_size: the same for an evaluation; null for as many as in training.
        pool: how many training batches are sorted by length together: the more, the less padding, and the more alike the texts of
            a batch.
        direction: read texts from the left or from the right.
        predict_split: what `predict` reads; null for the test split, or the validation split where there is none.
        seed: of the order of the training texts.
        cache: folder for tokenised corpora; null for ~/.cache/unroll.

    Raises:
        ValueError: if a setting is out of its range.
    """

    source: LabelledSource

    def __init__(
        self,
        source: LabelledSource,
        tokenizer: TokenizerRecipe | None = None,
        batch_size: int = 64,
        evaluation_batch_size: int | None = None,
        pool: int = 20,
        direction: Literal["left_to_right", "right_to_left"] = "left_to_right",
        predict_split: Split | None = None,
        seed: int = 0,
        cache: str | None = None,
    ) -> None:
        super().__init__(source, batch_size, evaluation_batch_size, pool, predict_split, seed)
        self.recipe = tokenizer or Words()
        self.direction = direction
        self.cache = Path(cache or DEFAULT_CACHE).expanduser()

    @cached_property
    def corpus(self) -> LabelledCorpus:
        """The tokenised corpus: made by the first process that asks, while others wait."""
        return LabelledCorpus(self.source, self.recipe, self.cache)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained or from the cache."""
        return self.corpus.tokenizer

    @property
    def labels(self) -> Tokenizer:
        """A token for each label."""
        return self.corpus.labels

    @property
    def splits(self) -> list[Split]:
        """Which splits there are."""
        return list(self.corpus.splits)

    def prepare_data(self) -> None:
        """Tokenise on one process, before the others open the result."""
        _ = self.corpus

    def batches(self, split: Split, *, train: bool) -> ExampleBatches[ClassificationBatch]:
        """The texts of a split: shuffled for training, else in their order."""
        texts = self.corpus.splits[split]

        def collate(rows: np.ndarray, normalizer: float) -> ClassificationBatch:
            ids = [torch.from_numpy(texts.tokens[row].astype(np.int64)) for row in rows.tolist()] or [torch.zeros(1).long()]
            rows_read = ids if self.direction == "left_to_right" else [row.flip(0) for row in ids]
            return ClassificationBatch(
                pad_sequence(rows_read, batch_first=True),
                torch.tensor([len(row) for row in ids]),
                torch.from_numpy(np.array(texts.labels[rows])) if len(rows) else torch.zeros(1).long(),
                torch.from_numpy(rows) if len(rows) else torch.tensor([-1]),
                [bytes(texts.texts[row]).decode() for row in rows.tolist()] or [""],
                torch.tensor(normalizer),
            )

        lengths = texts.tokens.lengths
        return self.batches_of(lengths, np.ones_like(lengths), collate, train=train)
