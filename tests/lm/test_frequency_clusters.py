"""Clusters of a vocabulary by frequency, and which tokenizers give ids in that order."""

from collections import Counter

import numpy as np
import pytest
from torch import nn

from datamodules.recipes import BPE, Characters, TrainedRecipe, Unigram, WordPiece, Words
from lm.adaptive_input import AdaptiveEmbedding
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.frequency_clusters import Cluster, check_order_of_frequency, frequency_clusters

TEXT = [
    "the cat sees the dog and the dog sees the cat",
    "the bird hears the cat and the dog hears the bird",
    "a horse likes the cat and the horse likes a dog",
    "the goat sleeps under the tree where the bird sings",
] * 3  # fmt: skip


def test_features_are_divided_from_cluster_to_cluster() -> None:
    assert frequency_clusters(100, 30, [5, 20], 4.0) == [Cluster(0, 5, 30), Cluster(5, 20, 7), Cluster(20, 100, 1)]


@pytest.mark.parametrize("module", [AdaptiveSoftmaxHead(8, 20, [4, 10], 2.0), AdaptiveEmbedding(20, 8, [4, 10], 2.0)])
def test_ids_that_do_not_fall_in_frequency_are_refused(module: nn.Module) -> None:
    falling = np.repeat(np.arange(20, dtype=np.uint16), range(20, 0, -1))
    model = nn.Sequential(nn.Linear(1, 1), module)
    check_order_of_frequency(model, falling)
    check_order_of_frequency(model, falling[:0])
    message = rf"{type(module).__name__}: its ids have to fall in frequency, and a word from id 4 on is seen 3\.0 times as often"
    with pytest.raises(ValueError, match=message):
        check_order_of_frequency(model, 19 - falling)
    with pytest.raises(ValueError, match=r"from id 10 on is seen inf times .* such as datamodules\.recipes\.Words"):
        check_order_of_frequency(model, np.array([0, 11]))
    check_order_of_frequency(nn.Linear(1, 1), 19 - falling)


@pytest.mark.parametrize("recipe", [Words(), Characters()])
def test_words_and_characters_are_sorted_by_frequency(recipe: TrainedRecipe) -> None:
    tokenizer = recipe.train(TEXT)
    counts = Counter(token for line in TEXT for token in tokenizer.encode(line))
    seen = [counts[token] for token in range(len(recipe.reserved_tokens), len(tokenizer))]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] > seen[-1]


@pytest.mark.parametrize("recipe", [BPE(vocab_size=60, byte_level=False), WordPiece(vocab_size=80), Unigram(vocab_size=40)])
def test_pieces_of_words_need_not_be(recipe: TrainedRecipe) -> None:
    tokenizer = recipe.train(TEXT)
    counts = Counter(token for line in TEXT for token in tokenizer.encode(line))
    seen = [counts[token] for token in range(len(recipe.reserved_tokens), len(tokenizer))]
    assert seen != sorted(seen, reverse=True)
