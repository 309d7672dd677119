"""Adaptive input embeddings, alone and tied to an adaptive softmax."""

from functools import partial
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from callbacks import WeightTying
from lm import LanguageModel
from lm.adaptive_input import AdaptiveEmbedding
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import LinearHead
from lm.network import RecurrentNetwork

VOCAB_SIZE, WIDTH, CUTOFFS = 30, 16, [6, 14]

pytestmark = pytest.mark.usefixtures("seed")


def table(embedding: AdaptiveEmbedding) -> Tensor:
    """The embedding of every word, `(vocab_size, width)`, by plain products."""
    first, second, third = (embedding.get_parameter(f"words.{i}.weight") for i in range(3))
    wide = [words @ embedding.get_parameter(f"projections.{i}.weight").T for i, words in enumerate((second, third), 1)]
    return torch.cat([first, *wide])


def tied(model: LanguageModel, source: str = "network.embedding", target: str = "head") -> int:
    """Ties, and counts the parameters that are left."""
    WeightTying(source, target).setup(Trainer(logger=False, accelerator="cpu"), model, "fit")
    return len(list(model.parameters()))


def make_model(**settings: Any) -> LanguageModel:
    alike: dict[str, Any] = {
        "embedding_size": WIDTH,
        "layer_sizes": [WIDTH],
        "embedding": partial(AdaptiveEmbedding, cutoffs=CUTOFFS, div_value=2.0),
        "head": partial(AdaptiveSoftmaxHead, cutoffs=CUTOFFS, div_value=2.0),
    }
    return LanguageModel(VOCAB_SIZE, **alike | settings)


@pytest.mark.parametrize("shape", [(2, 5), (7,), (1, 0)])
def test_every_word_has_its_projected_features(shape: tuple[int, ...]) -> None:
    embedding = AdaptiveEmbedding(VOCAB_SIZE, WIDTH, CUTOFFS, 2.0)
    assert [weight.shape[1] for weight in embedding.words.parameters()] == [16, 8, 4]
    tokens = torch.randint(VOCAB_SIZE, shape)
    torch.testing.assert_close(embedding(tokens), table(embedding)[tokens])


def test_gradients_are_those_of_a_table_and_a_cluster_without_a_word_gets_zeros() -> None:
    embedding = AdaptiveEmbedding(VOCAB_SIZE, WIDTH, CUTOFFS, 2.0)
    tokens, weights = torch.tensor([[0, 7, 7, 5], [13, 6, 1, 0]]), torch.randn(2, 4, WIDTH)
    parameters = list(embedding.parameters())
    ours = torch.autograd.grad((embedding(tokens).tanh() * weights).sum(), parameters)
    plain = torch.autograd.grad((table(embedding)[tokens].tanh() * weights).sum(), parameters)
    for (name, _), one, other in zip(embedding.named_parameters(), ours, plain, strict=True):
        torch.testing.assert_close(one, other)
        assert one.any().item() is (".2." not in name)


def test_features_start_as_those_of_a_table() -> None:
    found = table(AdaptiveEmbedding(3000, 64, [1000, 2000]))
    for rows in found.view(3, 1000, 64):
        assert rows.std().item() == pytest.approx(1, abs=0.15)


def test_dropped_words_are_dropped_everywhere() -> None:
    network = RecurrentNetwork(
        VOCAB_SIZE, embedding_size=WIDTH, embedding=partial(AdaptiveEmbedding, cutoffs=CUTOFFS), embedding_dropout=0.5
    )
    tokens = torch.arange(VOCAB_SIZE).repeat(2, 2)
    embedded = network.embed(tokens)
    dropped = (embedded == 0).all(-1)
    assert 0.2 < dropped.float().mean() < 0.8
    assert torch.equal(dropped, dropped[:1, :VOCAB_SIZE].repeat(2, 2))
    torch.testing.assert_close(embedded[~dropped], 2 * network.embedding(tokens)[~dropped])


def test_input_and_softmax_share_words_and_projections_or_words_alone() -> None:
    apart = len(list(make_model().parameters()))
    both, words = make_model(), make_model()
    assert tied(both) == apart - 5  # three matrices of words, two projections
    assert tied(words, "network.embedding.words", "head.words") == apart - 3
    for model in (both, words):
        assert model.get_parameter("head.words.2.weight") is model.get_parameter("network.embedding.words.2.weight")
    name = "projections.1.weight"
    assert both.get_parameter(f"head.{name}") is both.get_parameter(f"network.embedding.{name}")
    assert words.get_parameter(f"head.{name}") is not words.get_parameter(f"network.embedding.{name}")


def test_tied_clusters_learn_from_both_sides() -> None:
    model = make_model()
    tied(model)
    tokens, targets = torch.randint(VOCAB_SIZE, (2, 2, 9))
    weight = model.get_parameter("network.embedding.words.2.weight")
    (gradient,) = torch.autograd.grad(model.head.loss(model(tokens).hidden, targets).total, [weight])
    embedding, head = model.network.embedding, model.head
    assert isinstance(embedding, AdaptiveEmbedding)
    log_prob = head.log_prob(model.network.read(table(embedding)[tokens]).hidden)
    expected = torch.autograd.grad(-log_prob.gather(-1, targets[..., None]).sum(), [weight])[0]
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"head": partial(AdaptiveSoftmaxHead, cutoffs=[5, 14], div_value=2.0)},
            r"words\.0\.weight is \(6, 16\) and",
        ),
        (
            {"head": partial(AdaptiveSoftmaxHead, cutoffs=CUTOFFS)},
            r"words\.1\.weight is \(8, 8\) .* \(8, 4\); give both the same",
        ),
        ({"layer_sizes": [20]}, r"words\.0\.weight is \(6, 16\) .* \(6, 20\); .* the embedding's size as its projection_size"),
        ({"head": LinearHead}, r"network\.embedding has a words\.0\.weight and head none; tie a table to a LinearHead"),
        ({"embedding": None}, "network.embedding has a weight and head none; .* an AdaptiveEmbedding to an AdaptiveSoftmaxHead"),
    ],
)
def test_what_cannot_be_tied_is_named_with_its_sizes(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tied(make_model(**settings))


def test_a_projection_lets_a_wider_layer_be_tied() -> None:
    head = partial(AdaptiveSoftmaxHead, cutoffs=CUTOFFS, div_value=2.0, projection_size=WIDTH)
    model = make_model(layer_sizes=[20], head=head)
    apart = len(list(model.parameters()))
    assert tied(model) == apart - 5


def test_one_hot_input_takes_no_embedding() -> None:
    with pytest.raises(ValueError, match="embedding: one-hot input has none; give embedding_size"):
        make_model(embedding_size=None)
