"""Batches of what has labels: texts, and the words of sentences."""

from typing import NamedTuple

from torch import Tensor


class ClassificationBatch(NamedTuple):
    """Texts and their labels, or one rank's part of them.

    A rank that has no text of a batch gets one of a single token with nothing to predict, and −1 for its number.

    Attributes:
        tokens: `(batch, time)` ids in reading order, then zeros.
        lengths: `(batch,)` tokens of each text, 1 or more.
        labels: `(batch,)` ids.
        indices: `(batch,)` numbers of the texts in their split.
        texts: what they were.
        normalizer: scalar float, texts of all ranks in all batches of this step of the optimizer.
    """

    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    indices: Tensor
    texts: list[str]
    normalizer: Tensor


class TaggingBatch(NamedTuple):
    """Sentences and the tags of their words, or one rank's part of them.

    A rank that has no sentence of a batch gets one of a single word with nothing to predict, and −1 for its number.

    Attributes:
        tokens: `(batch, time)` ids of words, then zeros.
        lengths: `(batch,)` words of each sentence, 1 or more.
        tags: `(batch, time)` ids, then zeros.
        mask: `(batch, time)` whether there is a tag to predict.
        words: of each sentence, as they are spelled.
        indices: `(batch,)` numbers of the sentences in their split.
        normalizer: scalar float, tags of all ranks in all batches of this step of the optimizer.
    """

    tokens: Tensor
    lengths: Tensor
    tags: Tensor
    mask: Tensor
    words: list[list[str]]
    indices: Tensor
    normalizer: Tensor
