"""TranslationData: pairs from a source, as batches for a translation model."""

from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from datamodules.bucketing import BatchUnit, BucketedBatches
from datamodules.filters import Filtered, filter_by_length
from datamodules.language import DEFAULT_CACHE
from datamodules.loading import EpochData
from datamodules.pair_corpus import PairCorpus, Recipes, Texts
from datamodules.pairs import PairSource
from datamodules.recipes import TokenizerRecipe, Words
from datamodules.sides import Side
from datamodules.sources import Split, split_to_predict
from datamodules.streams import Place
from datamodules.tokenizers import Tokenizer


class TranslationData(EpochData):
    """A corpus of pairs as batches of source rows `text <eos>` and target rows `<bos> text <eos>`.

    `<bos>`, `<eos>` and `<pad>` stand for the tokens that the tokenizers use as such, `[CLS]`, `[SEP]` and `[PAD]` for instance.

    Args:
        source: of the pairs, already split.
        source_tokenizer: recipe of the source side's tokenizer, trained on the training split; null for words.
        target_tokenizer: the same for the target side.
        shared_tokenizer: one recipe for both sides, trained on both, in place of these two.
        batch_size: sentences or tokens of a training batch, over all ranks; tokens are counted on the longer side, with padding.
        batch_unit: which of the two `batch_size` counts.
        pool: how many training batches are sorted by length together, in pools drawn anew every epoch; null for all, which pads
            least. Batches of a pool, if counted by tokens, have as many as each other, `batch_size` on average, without padding.
        evaluation_batch_size: the same for an evaluation batch; null for as many as in training.
        max_length: leave out of the training pairs with a side of more tokens, `<eos>` not counted; null leaves none out.
        max_ratio: leave out of the training pairs with one side more than so many times as long as the other.
        truncate_to: cut longer texts, in every split, to so many tokens, the last of which is `<eos>`; null cuts none.
        pad_to: pad every row to so many tokens at least, not only to the longest of its batch; `<bos>` is not counted.
        predict_split: what `predict` reads; null for the test split, or the validation split where there is none.
        seed: of the order of the training pairs.
        cache: folder for tokenised corpora; null for ~/.cache/unroll.

    Raises:
        ValueError: if a setting is out of its range, or no pair is left to train on.
    """

    def __init__(
        self,
        source: PairSource,
        source_tokenizer: TokenizerRecipe | None = None,
        target_tokenizer: TokenizerRecipe | None = None,
        shared_tokenizer: TokenizerRecipe | None = None,
        batch_size: int = 64,
        batch_unit: BatchUnit = "sentences",
        pool: int | None = None,
        evaluation_batch_size: int | None = None,
        max_length: int | None = None,
        max_ratio: float | None = None,
        truncate_to: int | None = None,
        pad_to: int | None = None,
        predict_split: Split | None = None,
        seed: int = 0,
        cache: str | None = None,
    ) -> None:
        super().__init__()
        if shared_tokenizer and (source_tokenizer or target_tokenizer):
            raise ValueError("translation: shared_tokenizer is for both sides: leave source_tokenizer and target_tokenizer out")
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("pool", pool, 1),
            ("evaluation_batch_size", evaluation_batch_size, 1),
            ("max_length", max_length, 1),
            ("max_ratio", max_ratio, 1),
            ("truncate_to", truncate_to, 2),
            ("pad_to", pad_to, 1),
        ):
            if value is not None and value < least:
                raise ValueError(f"translation: {name} is {least} or more, got {value}")
        self.source = source
        if shared_tokenizer:
            self.recipes = Recipes(shared_tokenizer, None)
        else:
            self.recipes = Recipes(source_tokenizer or Words(), target_tokenizer or Words())
        self.batch_size = batch_size
        self.batch_unit = batch_unit
        self.pool = pool
        self.evaluation_batch_size = evaluation_batch_size or batch_size
        self.max_length = max_length
        self.max_ratio = max_ratio
        self.truncate_to = truncate_to
        self.pad_to = pad_to
        self.predict_split = predict_split
        self.seed = seed
        self.cache = Path(cache or DEFAULT_CACHE).expanduser()

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.source}"  # Lightning's would look for DataLoaders in the loaders

    @cached_property
    def corpus(self) -> PairCorpus:
        """The tokenised corpus: made by the first process that asks, while others wait."""
        return PairCorpus(self.source, self.recipes, self.cache)

    @property
    def source_tokenizer(self) -> Tokenizer:
        """The tokenizer of the source side, trained or from the cache."""
        return self.corpus.source_tokenizer

    @property
    def target_tokenizer(self) -> Tokenizer:
        """The tokenizer of the target side; the very object of the source side where they share one."""
        return self.corpus.target_tokenizer

    @property
    def source_vocab_size(self) -> int:
        """Entries of the source vocabulary."""
        return len(self.source_tokenizer)

    @property
    def target_vocab_size(self) -> int:
        """Entries of the target vocabulary."""
        return len(self.target_tokenizer)

    def texts(self, split: Split) -> Texts:
        """The pairs of a split as they were before any tokenizer; `TranslationBatch.indices` are their numbers.

        Raises:
            ValueError: if the source has no such split.
        """
        if split not in self.corpus.splits:
            raise ValueError(
                f"translation: there is no {split} split, but {list(self.corpus.splits)}: hold out a fraction for it"
            )
        return self.corpus.splits[split].texts

    def prepare_data(self) -> None:
        """Tokenise on one process, before the others open the result."""
        _ = self.corpus

    def setup(self, stage: str) -> None:
        """Say which pairs there are to read; refuse to go on with none to train on, before anything runs."""
        read: dict[str, list[Split | None]] = {"validate": ["validation"], "test": ["test"], "predict": [self.predicted]}
        splits = [split for split in self.corpus.splits if stage == "fit" or split in read[stage]]
        if splits:
            rank_zero_info(self.report(splits))
        if stage == "fit":
            _ = self.training_batches

    @cached_property
    def filtered(self) -> Filtered:
        """The training pairs that are read."""
        pairs = self.corpus.splits["train"]
        filtered = filter_by_length(pairs.source.lengths, pairs.target.lengths, self.max_length, self.max_ratio)
        if not len(filtered.rows):
            raise ValueError(
                f"translation: no pair is left to train on, of {len(pairs.source)}: {counted(filtered.dropped)};"
                " raise max_length or max_ratio, or check that each side has the tokenizer of its language"
            )
        return filtered

    def report(self, splits: Sequence[Split] | None = None) -> str:
        """One line that says how many pairs of each of these splits, or of all, are read, how many are not, and why."""
        parts = []
        for split in self.corpus.splits if splits is None else splits:
            pairs = self.corpus.splits[split]
            dropped = {"with an empty side": len(pairs.gaps)} if pairs.gaps else {}
            dropped |= self.filtered.dropped if split == "train" else {}
            total = len(pairs.source) + len(pairs.gaps)
            kept = f"{total - sum(dropped.values()):,} of {total:,}"
            parts.append(f"{split} {kept}" + (f" (dropped {counted(dropped)})" if dropped else ""))
        return f"pairs: {'; '.join(parts)}"

    @property
    def place(self) -> Place:
        """Which rows are this process's."""
        return Place(self.seed, self.trainer.global_rank, self.trainer.world_size) if self.trainer else Place(self.seed)

    def sides(self, split: Split) -> tuple[Side, Side]:
        """The rows of a split."""
        pairs = self.corpus.splits[split]
        make = partial(Side, truncate_to=self.truncate_to, pad_to=self.pad_to)
        return make(pairs.source, self.source_tokenizer, begins=False), make(pairs.target, self.target_tokenizer, begins=True)

    @cached_property
    def training_batches(self) -> BucketedBatches:
        """The training batches; one object for the whole run, so that its position is saved and restored."""
        rows, group = self.filtered.rows, self.accumulated
        return BucketedBatches(
            *self.sides("train"), rows, self.batch_size, self.batch_unit, self.place, pool=self.pool, group=group
        )

    def train_dataloader(self) -> BucketedBatches:
        """Batches of the training split."""
        return self.training_batches

    def evaluation_batches(self, split: Split) -> list[BucketedBatches]:
        """Batches of a whole split, unfiltered; none if there is no such split."""
        if split not in self.corpus.splits:
            return []
        source, target = self.sides(split)
        rows, size = np.arange(len(source.lengths)), self.evaluation_batch_size
        return [BucketedBatches(source, target, rows, size, self.batch_unit, self.place, shuffle=False)]

    def val_dataloader(self) -> list[BucketedBatches]:
        """Batches of the validation split."""
        return self.evaluation_batches("validation")

    def test_dataloader(self) -> list[BucketedBatches]:
        """Batches of the test split."""
        return self.evaluation_batches("test")

    @property
    def predicted(self) -> Split | None:
        """What `predict` reads; None where there is nothing. Raises ValueError if `predict_split` is not there."""
        return split_to_predict(self.predict_split, self.corpus.splits)

    def predict_dataloader(self) -> list[BucketedBatches]:
        """Batches of the split that is predicted."""
        return [] if self.predicted is None else self.evaluation_batches(self.predicted)


def counted(dropped: dict[str, int]) -> str:
    """How many pairs were dropped, and why."""
    return ", ".join(f"{count:,} {reason}" for reason, count in dropped.items())
