"""One side of a corpus of pairs as rows of ids: text with its special tokens, padded."""

import numpy as np
import torch
from torch import Tensor

from datamodules.ragged import Ragged
from datamodules.tokenizers import Tokenizer


class Side:
    """Sentences as rows `text <eos> <pad> ...`, or `<bos> text <eos> <pad> ...`.

    Args:
        sentences: ids of each text.
        tokenizer: knows the special tokens, whatever their names.
        begins: whether rows begin with `<bos>`.
        truncate_to: cut a text so that it has at most so many tokens with its `<eos>`; None cuts none.
        pad_to: fill rows up to so many tokens at least, `<bos>` not counted; None fills them up to the longest of the batch.

    Attributes:
        lengths: `(sentences,)` tokens of each row, special ones included.

    Raises:
        ValueError: if the tokenizer has no such special tokens.
    """

    def __init__(
        self,
        sentences: Ragged,
        tokenizer: Tokenizer,
        *,
        begins: bool,
        truncate_to: int | None = None,
        pad_to: int | None = None,
    ) -> None:
        self.beginning, self.end, self.padding = tokenizer.beginning, tokenizer.end, tokenizer.padding
        if self.end is None or self.padding is None or (begins and self.beginning is None):
            raise ValueError("pairs: rows need <bos>, <eos> and <pad>: reserve them in the tokenizer")
        self.values, self.starts = sentences.values, sentences.offsets[:-1]
        self.first = int(begins)
        self.text_lengths = sentences.lengths if truncate_to is None else np.minimum(sentences.lengths, truncate_to - 1)
        self.lengths = self.first + self.text_lengths + 1
        self.least = 0 if pad_to is None else self.first + pad_to

    def batch(self, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        """Ids `(rows, time)` and lengths `(rows,)` of some rows, one at least."""
        lengths, text_lengths = self.lengths[rows], self.text_lengths[rows]
        ids = np.full((len(rows), max(self.least, lengths.max())), self.padding, dtype=np.int64)
        if self.first:
            ids[:, 0] = self.beginning
        positions = np.arange(text_lengths.max())
        real = positions < text_lengths[:, None]
        ids[:, self.first : self.first + len(positions)][real] = self.values[(self.starts[rows, None] + positions)[real]]
        ids[np.arange(len(rows)), lengths - 1] = self.end
        return torch.from_numpy(ids), torch.from_numpy(lengths)

    def blank(self) -> tuple[Tensor, Tensor]:
        """One row in which nothing is to be read or predicted: `<eos>`, or `<bos> <pad>` of length 1."""
        ids = [self.beginning, self.padding] if self.first else [self.end]
        return torch.tensor([ids]), torch.tensor([1])
