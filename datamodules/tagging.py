"""TaggingData: tagged sentences from a source, as batches for a tagger."""

from functools import cached_property

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

from datamodules.example_data import ExampleData
from datamodules.examples import ExampleBatches
from datamodules.label_batches import TaggingBatch
from datamodules.labels import label_vocabulary
from datamodules.recipes import Words
from datamodules.sources import Split
from datamodules.tagged import TaggedSentence, TaggedSource
from datamodules.tokenizers import Tokenizer, word_ids


class TaggingData(ExampleData[TaggingBatch]):
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

    source: TaggedSource

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
        super().__init__(source, batch_size, evaluation_batch_size, pool, predict_split, seed)
        self.recipe = tokenizer or Words(reserved_tokens=("<unk>",), normalization="lowercase", min_frequency=2)

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

        return self.batches_of(lengths, lengths, collate, train=train)
