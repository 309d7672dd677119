"""Rows of one vocabulary for another, by word."""

import pytest
import torch

from datamodules.labels import label_vocabulary
from datamodules.recipes import Words
from lm.vocabulary_transfer import transferred


def test_words_take_their_rows_along_and_new_ones_begin_as_the_mean() -> None:
    theirs, ours = Words(reserved_tokens=("<unk>", "<eos>")).train(["b a a"]), Words(reserved_tokens=("<unk>",)).train(["c b"])
    rows = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 1.0], [6.0, 3.0]])  # <unk> <eos> a b
    found, count = transferred(rows, theirs, ours)
    assert ours.tokens(range(3)) == ["<unk>", "b", "c"]
    assert found.tolist() == [[1, 0], [6, 3], [3, 1]]
    assert count == 2


def test_a_weight_of_another_vocabulary_is_refused() -> None:
    vocabulary = label_vocabulary(["a", "b"])
    with pytest.raises(ValueError, match="a weight of 3 rows has none for each of 2 entries"):
        transferred(torch.zeros(3, 1), vocabulary, vocabulary)
