"""LanguageData: text from a source, as windows for a language model."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np

from datamodules.corpus import Corpus
from datamodules.loading import EpochData
from datamodules.recipes import TokenizerRecipe, Words
from datamodules.sources import Source, Split, split_to_predict
from datamodules.streams import CompleteStream, Place, SequentialStream, Stream, StreamFactory
from datamodules.tokenizers import Tokenizer

DEFAULT_CACHE = Path("~/.cache/unroll")


class LanguageData(EpochData):
    """A corpus as windows of tokens and of the tokens after them.

    Args:
        source: of the lines, already split.
        tokenizer: recipe of the tokenizer, trained on the training split; null for words separated by spaces.
        line_end: token after each line, such as `<eos>`; null joins lines with nothing between them.
        lanes: windows in a training batch, over all ranks.
        steps: tokens in a window.
        stream: order of the training windows: `datamodules.streams.SequentialStream` or `SlidingStream`.
        evaluation_lanes: windows in an evaluation batch; null for as many as in training. Fewer lanes lose less context.
        direction: read texts from the left or from the right.
        max_tokens: keep only so many of the training split's first tokens; null for all.
        predict_split: what `predict` reads; null for the test split, or the validation split where there is none.
        seed: of everything the stream draws.
        cache: folder for tokenised corpora; null for ~/.cache/unroll.

    Raises:
        ValueError: if the corpus is empty or too short for its lanes and windows.
    """

    def __init__(
        self,
        source: Source,
        tokenizer: TokenizerRecipe | None = None,
        line_end: str | None = "<eos>",
        lanes: int = 32,
        steps: int = 35,
        stream: StreamFactory = SequentialStream,
        evaluation_lanes: int | None = None,
        direction: Literal["left_to_right", "right_to_left"] = "left_to_right",
        max_tokens: int | None = None,
        predict_split: Split | None = None,
        seed: int = 0,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        self.source = source
        self.recipe = tokenizer or Words()
        self.line_end = line_end
        self.lanes = lanes
        self.steps = steps
        self.stream = stream
        self.evaluation_lanes = evaluation_lanes or lanes
        self.direction = direction
        self.max_tokens = max_tokens
        self.predict_split = predict_split
        self.seed = seed
        self.cache = Path(cache or DEFAULT_CACHE).expanduser()

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.source}"  # Lightning's would look for DataLoaders in the loaders

    @cached_property
    def corpus(self) -> Corpus:
        """The tokenised corpus: made by the first process that asks, while others wait."""
        return Corpus(self.source, self.recipe, self.line_end, self.cache)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained or from the cache."""
        return self.corpus.tokenizer

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary."""
        return len(self.tokenizer)

    @cached_property
    def contiguous(self) -> bool:
        """Whether a training window continues the one before."""
        return self.training_stream.contiguous

    def tokens(self, split: str) -> np.ndarray:
        """The ids of a split in reading order; none if the source has no such split."""
        ids = self.corpus.arrays.get(split, np.zeros(0, dtype=np.int64))
        ids = ids[: self.max_tokens] if split == "train" else ids
        return ids if self.direction == "left_to_right" else ids[::-1]

    def prepare_data(self) -> None:
        """Tokenise on one process, before the others open the result."""
        _ = self.corpus

    def setup(self, stage: str) -> None:
        """Refuse a corpus that is too short, before anything runs."""
        if stage == "fit":
            _ = self.training_stream

    @property
    def place(self) -> Place:
        """Which lanes are this process's."""
        return Place(self.seed, self.trainer.global_rank, self.trainer.world_size) if self.trainer else Place(self.seed)

    @cached_property
    def training_stream(self) -> Stream:
        """The stream of training windows; one object for the whole run, so that its position is saved and restored."""
        return self.stream(self.tokens("train"), self.lanes, self.steps, self.place)

    def train_dataloader(self) -> Stream:
        """Windows of the training split."""
        return self.training_stream

    def evaluation_streams(self, split: str) -> list[Stream]:
        """Windows of a whole split; no stream if there is no such split."""
        tokens = self.tokens(split)
        return [CompleteStream(tokens, self.evaluation_lanes, self.steps, self.place)] if len(tokens) else []

    def val_dataloader(self) -> list[Stream]:
        """Windows of the validation split."""
        return self.evaluation_streams("validation")

    def test_dataloader(self) -> list[Stream]:
        """Windows of the test split."""
        return self.evaluation_streams("test")

    def predict_dataloader(self) -> list[Stream]:
        """Windows of the split that is predicted.

        Raises:
            ValueError: if `predict_split` is not there.
        """
        predicted = split_to_predict(self.predict_split, self.corpus.arrays)
        return [] if predicted is None else self.evaluation_streams(predicted)
