"""TaggingData: tagged sentences from a source, as batches for a tagger."""

from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from datamodules.bucketing import alone
from datamodules.examples import ExampleBatches
from datamodules.label_batches import TaggingBatch
from datamodules.labels import label_vocabulary
from datamodules.loading import EpochData
from datamodules.recipes import Words
from datamodules.sources import Split, split_to_predict
from datamodules.streams import Place
from datamodules.tagged import TaggedSentence, TaggedSource
from datamodules.tokenizers import Tokenizer, word_ids


class TaggingData(EpochData):
    """A corpus of tagged sentences as batches. It is kept in memory, as are all corpora that people have tagged.

    Args:
        source: of the sentences, already split.
        tokenizer: which words have ids of their own; null for those in lower case that the training split has twice. Others are
            unknown, of which a tagger knows the spelling if it reads characters.
        batch_size: sentences of a training batch, over all ranks.
        evaluation_batch_size: the same for an evaluation; null for as many as in training.
        pool: how many training batches are sorted by length together.
        predict_split: what `predict` reads; null for the test split, or the validation split where there is none.
        seed: of the order of the training sentences.
    """

    def __init__(
        self,
        source: TaggedSource,
        tokenizer: Words | None = None,
        batch_size: int = 32,
        evaluation_batch_size: int | None = None,
        pool: int = 20,
        predict_split: Split | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.source = source
        self.recipe = tokenizer or Words(reserved_tokens=("<unk>",), normalization="lowercase", min_frequency=2)
        self.batch_size = batch_size
        self.evaluation_batch_size = evaluation_batch_size or batch_size
        self.pool = pool
        self.predict_split = predict_split
        self.seed = seed

    def __str__(self) -> str:
        return f"{type(self).__name__} of {self.source}"  # Lightning's would look for DataLoaders in the loaders

    @cached_property
    def sentences(self) -> dict[Split, list[TaggedSentence]]:
        """The sentences of each split."""
        return self.source.tagged()

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the words of the training split."""
        return self.recipe.train(" ".join(sentence.words) for sentence in self.sentences["train"])

    @cached_property
    def labels(self) -> Tokenizer:
        """A token for each tag of the training split, in the order of the alphabet."""
        return label_vocabulary(tag for sentence in self.sentences["train"] for tag in sentence.tags)

    @property
    def splits(self) -> list[Split]:
        """Which splits there are."""
        return list(self.sentences)

    @property
    def vocab_size(self) -> int:
        """Words that have ids of their own, and the unknown one."""
        return len(self.tokenizer)

    @property
    def label_count(self) -> int:
        """Different tags."""
        return len(self.labels)

    @property
    def place(self) -> Place:
        """Which sentences are this process's."""
        return Place(self.seed, self.trainer.global_rank, self.trainer.world_size) if self.trainer else Place(self.seed)

    def batches(self, split: Split, *, train: bool) -> ExampleBatches[TaggingBatch]:
        """The sentences of a split: shuffled for training, else in their order."""
        sentences = self.sentences[split]
        ids = [torch.tensor(word_ids(sentence.words, self.tokenizer)) for sentence in sentences]
        tags = [torch.tensor([self.labels.id_of(tag) for tag in sentence.tags]) for sentence in sentences]
        lengths = np.array([len(sentence.words) for sentence in sentences])

        def collate(rows: np.ndarray, normalizer: float) -> TaggingBatch:
            own = rows.tolist()
            tokens = pad_sequence([ids[row] for row in own] or [torch.zeros(1).long()], batch_first=True)
            own_lengths = torch.from_numpy(lengths[rows]) if own else torch.ones(1).long()
            return TaggingBatch(
                tokens,
                own_lengths,
                pad_sequence([tags[row] for row in own], batch_first=True) if own else torch.zeros_like(tokens),
                (torch.arange(tokens.shape[1]) < own_lengths[:, None]) & bool(own),
                [sentences[row].words for row in own] or [[""]],
                torch.tensor(own or [-1]),
                torch.tensor(normalizer),
            )

        size, group = (self.batch_size, self.accumulated) if train else (self.evaluation_batch_size, alone)
        return ExampleBatches(lengths, lengths, size, collate, self.place, pool=self.pool, shuffle=train, group=group)

    @cached_property
    def training_batches(self) -> ExampleBatches[TaggingBatch]:
        """The training batches; one object for the whole run, so that its position is saved and restored."""
        return self.batches("train", train=True)

    def train_dataloader(self) -> ExampleBatches[TaggingBatch]:
        """Batches of the training split."""
        return self.training_batches

    def evaluation_batches(self, split: Split | None) -> list[ExampleBatches[TaggingBatch]]:
        """Batches of a whole split; none if there is no such split."""
        return [self.batches(split, train=False)] if split is not None and split in self.sentences else []

    def val_dataloader(self) -> list[ExampleBatches[TaggingBatch]]:
        """Batches of the validation split."""
        return self.evaluation_batches("validation")

    def test_dataloader(self) -> list[ExampleBatches[TaggingBatch]]:
        """Batches of the test split."""
        return self.evaluation_batches("test")

    def predict_dataloader(self) -> list[ExampleBatches[TaggingBatch]]:
        """Batches of the split that is predicted. Raises ValueError if `predict_split` is not there."""
        return self.evaluation_batches(split_to_predict(self.predict_split, self.sentences))
