"""The stack: sizes, residual connections, dropouts, one-hot input, states."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn

from lm.cells import LSTMCell
from lm.dropout import LockedDropout
from lm.layers import GRU, LSTM
from lm.network import OneHot, RecurrentNetwork

VOCAB, BATCH, STEPS = 11, 3, 7

pytestmark = pytest.mark.usefixtures("seed")


@pytest.fixture
def tokens() -> Tensor:
    return torch.randint(VOCAB, (BATCH, STEPS), generator=torch.Generator().manual_seed(1))


def test_layers_of_unequal_sizes(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 12, 8])
    output = network(tokens)
    assert network.output_size == 8
    assert output.hidden.shape == output.raw.shape == (BATCH, STEPS, 8)
    assert output.state is not None
    assert [[tuple(part.shape) for part in layer] for layer in output.state] == [[(1, BATCH, size)] * 2 for size in (8, 12, 8)]
    assert output.lengths is None


def test_a_stack_is_torchs_stack(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[6, 6])
    theirs = nn.LSTM(5, 6, num_layers=2, batch_first=True)
    for parameter, weight in zip(network.layers.parameters(), theirs.parameters(), strict=True):
        parameter.data.copy_(weight)
    expected, _ = theirs(network.embedding(tokens))
    torch.testing.assert_close(network(tokens).hidden, expected)


def test_two_windows_with_the_state_carried_equal_one(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 12, 8], residual=True)
    first = network(tokens[:, :3])
    second = network(tokens[:, 3:], first.state)
    whole = network(tokens)
    torch.testing.assert_close(torch.cat([first.hidden, second.hidden], dim=1), whole.hidden)
    torch.testing.assert_close(second.state, whole.state)


def test_one_hot_input_is_an_embedding_with_the_identity(tokens: Tensor) -> None:
    one_hot, embedded = (
        RecurrentNetwork(VOCAB, embedding_size=None, layer_sizes=[6]),
        RecurrentNetwork(VOCAB, embedding_size=VOCAB, layer_sizes=[6]),
    )
    assert isinstance(one_hot.embedding, OneHot)
    embedded.layers.load_state_dict(one_hot.layers.state_dict())
    nn.init.eye_(cast(Tensor, embedded.embedding.weight))
    assert torch.equal(one_hot(tokens).hidden, embedded(tokens).hidden)
    assert not list(one_hot.embedding.parameters())


def test_residuals_are_added_only_where_sizes_are_equal(tokens: Tensor) -> None:
    """Sizes 5 -> 8 -> 8 -> 6: only the second layer has an input as wide as its output."""
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 8, 6], residual=True)
    one, two, three = network.layers
    x = one(network.embedding(tokens))[0]
    x = two(x)[0] + x
    torch.testing.assert_close(network(tokens).hidden, three(x)[0])


def test_a_residual_reaches_the_raw_output(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=6, layer_sizes=[6], residual=True)
    x = network.embedding(tokens)
    torch.testing.assert_close(network(tokens).raw, network.layers[0](x)[0] + x)


def test_both_directions_feed_the_next_layer(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 6], cell=GRU, bidirectional=True)
    theirs = nn.GRU(5, 8, batch_first=True, bidirectional=True)
    assert [layer.input_size for layer in network.layers] == [5, 16]
    assert network.output_size == network(tokens).hidden.shape[-1] == 12
    assert sum(weight.numel() for weight in network.layers[0].parameters()) == sum(
        weight.numel() for weight in theirs.parameters()
    )


def test_each_dropout_stands_where_its_name_says() -> None:
    network = RecurrentNetwork(
        VOCAB, embedding_size=5, layer_sizes=[8, 8, 8], input_dropout=0.1, layer_dropout=0.2, output_dropout=0.3
    )
    assert [network.input_dropout.rate, *(dropout.rate for dropout in network.dropouts)] == [0.1, 0.2, 0.2, 0.3]


@pytest.mark.parametrize("embedding_size", [5, None])
@pytest.mark.parametrize("stepwise", [False, True])
def test_embedding_dropout_takes_all_occurrences_of_a_word_or_none(embedding_size: int | None, stepwise: bool) -> None:
    vocab, rate = 2000, 0.3
    network = RecurrentNetwork(vocab, embedding_size=embedding_size, layer_sizes=[3], cell=GRU, embedding_dropout=rate)
    tokens = torch.arange(vocab).repeat(2).view(4, 1000)
    if stepwise:
        embed = network.steps(4).embed
        embedded = torch.stack([embed(column) for column in tokens.T], dim=1)
    else:
        embedded = network.embed(tokens)
    kept = (embedded != 0).any(dim=-1)
    assert torch.equal(kept[:2], kept[2:])
    assert abs(kept[:2].float().mean().item() - (1 - rate)) < 4 * (rate * (1 - rate) / vocab) ** 0.5
    torch.testing.assert_close(embedded, network.embedding(tokens) * kept[..., None] / (1 - rate))
    assert not torch.equal((network.embed(tokens) != 0).any(dim=-1), kept), "every forward pass has a mask of its own"
    assert torch.equal(network.eval().embed(tokens), network.embedding(tokens))


def test_embedding_dropout_keeps_the_gradient_of_dropped_words_at_zero(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8], embedding_dropout=0.5)
    embedded = network.embed(tokens)
    (gradient,) = torch.autograd.grad(embedded.sum(), cast(nn.Embedding, network.embedding).weight)
    dropped = {int(token) for token, row in zip(tokens.flatten(), embedded.flatten(0, 1), strict=True) if not row.any()}
    assert 0 < len(dropped) < VOCAB
    for token in set(tokens.flatten().tolist()):
        assert bool((gradient[token] == 0).all()) is (token in dropped)


def test_raw_is_before_the_output_dropout(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[400], output_dropout=0.5)
    output = network(tokens)
    dropped = output.hidden == 0
    assert 0.4 < dropped.float().mean() < 0.6
    torch.testing.assert_close(output.hidden, torch.where(dropped, 0, 2 * output.raw))
    calm = network.eval()(tokens)
    assert torch.equal(calm.hidden, calm.raw)


@pytest.mark.parametrize("locked", [True, False])
def test_locked_dropout_is_constant_over_time_and_plain_dropout_is_not(tokens: Tensor, locked: bool) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[50], output_dropout=0.5, locked_dropout=locked)
    assert isinstance(network.dropouts[0], LockedDropout) is locked
    dropped = network(tokens).hidden == 0
    assert torch.equal(dropped, dropped[:, :1].expand_as(dropped)) is locked


def test_the_state_is_taken_before_dropout(tokens: Tensor) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 6], layer_dropout=0.9, output_dropout=0.9)
    torch.manual_seed(3)
    output = network(tokens)
    assert output.state is not None
    torch.testing.assert_close(output.state[-1][0][0], output.raw[:, -1])


def test_fused_layers_and_cells_have_the_same_shapes_behind_one_interface(tokens: Tensor) -> None:
    fused, cells = (
        RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[8, 12], cell=cell)(tokens) for cell in (LSTM, LSTMCell)
    )
    assert fused.hidden.shape == cells.hidden.shape
    assert [[part.shape for part in layer] for layer in fused.state] == [[part.shape for part in layer] for layer in cells.state]


def test_layers_may_have_cells_of_their_own(tokens: Tensor) -> None:
    network = RecurrentNetwork(11, embedding_size=4, layer_sizes=[5, 6], cell=[GRU, LSTMCell])
    assert [type(layer) for layer in network.layers] == [GRU, LSTMCell]
    assert network(tokens).hidden.shape == (*tokens.shape, 6)
    with pytest.raises(ValueError, match="cell: 1 cells cannot make 2 layers; give one for all, or each its own"):
        RecurrentNetwork(11, layer_sizes=[5, 6], cell=[GRU])


def test_a_network_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layer_sizes: .* at least one layer, for example \[200, 200\]"):
        RecurrentNetwork(VOCAB, embedding_size=5, layer_sizes=[])
