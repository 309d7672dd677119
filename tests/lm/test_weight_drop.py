"""WeightDrop: what its mask reaches, how long it stays, and what it leaves as it was."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell, ResetFirstGRUCell, Zoneout
from lm.dropout import dropout_mask
from lm.layers import GRU, LSTM, RNN, LayerFactory, SteppedLayer
from lm.network import NetworkState, RecurrentNetwork
from lm.weight_drop import WeightDrop

BATCH, STEPS, INPUT, HIDDEN, RATE = 3, 6, 4, 5, 0.4
CELLS = pytest.mark.parametrize("cell", [RNN, GRU, LSTM, ElmanCell, GRUCell, ResetFirstGRUCell, LSTMCell])

pytestmark = pytest.mark.usefixtures("seed")


def dropped_by_hand(layer: WeightDrop, x: Tensor, seed: int) -> tuple[Tensor, dict[str, Tensor]]:
    """What the layer inside says with its recurrent matrix times the mask of a seed, and the parameters it says it with."""
    torch.manual_seed(seed)
    (weight,) = layer.recurrent_weights()
    mask = dropout_mask(weight, RATE)
    parameters = {name: part.detach().clone().requires_grad_() for name, part in layer.layer.named_parameters()}
    (name,) = (name for name, part in layer.layer.named_parameters() if part is weight)
    y, _ = functional_call(layer.layer, parameters | {name: parameters[name] * mask}, (x,))
    return y, parameters


@CELLS
def test_the_recurrent_matrix_is_dropped_and_scaled_and_gradients_pass_what_is_kept(cell: LayerFactory) -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, cell, RATE), torch.randn(BATCH, STEPS, INPUT)
    expected, parameters = dropped_by_hand(layer, x, seed=3)
    torch.manual_seed(3)
    y, _ = layer(x)
    torch.testing.assert_close(y, expected)
    gradients = torch.autograd.grad(y.square().sum(), list(layer.layer.parameters()))
    torch.testing.assert_close(gradients, torch.autograd.grad(expected.square().sum(), list(parameters.values())))


@CELLS
def test_the_mask_is_drawn_once_a_pass_and_not_in_evaluation(cell: LayerFactory) -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, cell, RATE), torch.randn(1, STEPS, INPUT).expand(BATCH, -1, -1)
    once, again = layer(x)[0], layer(x)[0]
    torch.testing.assert_close(once, once[:1].expand_as(once))  # the same for every row
    assert not torch.allclose(once, again)
    layer.eval()
    assert torch.equal(layer(x)[0], layer.layer(x)[0])
    layer.train()
    assert not torch.equal(layer(x)[0], layer.layer(x)[0])  # and again after an evaluation


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_the_share_of_dropped_weights_is_the_rate(rate: float) -> None:
    layer = WeightDrop(4, 100, LSTM, rate)
    (weight,) = layer.recurrent_weights()
    (seen,) = layer.with_dropped_weights(layer.layer.recurrent_weights)()
    ratio = (seen / weight).detach()
    assert abs((ratio == 0).float().mean().item() - rate) < 4 * (rate * (1 - rate) / ratio.numel()) ** 0.5
    kept = ratio[ratio > 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 1 / (1 - rate)))


@CELLS
def test_single_steps_keep_one_mask(cell: LayerFactory) -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, cell, RATE), torch.randn(BATCH, STEPS, INPUT)
    torch.manual_seed(5)
    whole, _ = layer(x)
    torch.manual_seed(5)
    state = layer.first_state(x)
    step = layer.stepper(state[0])
    for time in range(STEPS):
        state = step(layer.project(x[:, time]), state)
        torch.testing.assert_close(state[0], whole[:, time])


def test_a_network_in_single_steps_drops_what_it_drops_at_once() -> None:
    network = RecurrentNetwork(9, embedding_size=INPUT, layer_sizes=[HIDDEN], cell=partial(WeightDrop, cell=LSTM, rate=RATE))
    tokens, (layer,) = torch.randint(9, (BATCH, STEPS)), network.layers
    assert isinstance(layer, SteppedLayer)
    torch.manual_seed(5)
    whole = network(tokens).hidden
    torch.manual_seed(5)
    steps = network.steps(BATCH)
    state: NetworkState = (layer.first_state(torch.empty(BATCH, INPUT)),)
    for time in range(STEPS):
        x = steps.embed(tokens[:, time])
        said, state = steps.layers(layer.project(x), x, state)
        torch.testing.assert_close(said, whole[:, time])


@CELLS
def test_a_copy_a_round_trip_and_a_second_training_pass_after_an_evaluation(cell: LayerFactory) -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, cell, RATE), torch.randn(BATCH, STEPS, INPUT)
    layer(x)[0].sum().backward()
    layer.eval()(x)
    layer.train()(x)[0].sum().backward()
    twin = copy.deepcopy(layer)
    fresh = WeightDrop(INPUT, HIDDEN, cell, RATE)
    fresh.load_state_dict(layer.state_dict())
    for other in (twin, fresh):
        torch.manual_seed(1)
        expected = layer(x)[0]
        torch.manual_seed(1)
        torch.testing.assert_close(other(x)[0], expected)
    assert not any(a is b for a, b in zip(twin.parameters(), layer.parameters(), strict=True))


def test_an_optimizer_changes_the_weights_themselves() -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, LSTM, RATE), torch.randn(BATCH, STEPS, INPUT)
    (weight,) = layer.recurrent_weights()
    before = weight.detach().clone()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(x)[0].sum().backward()
    optimizer.step()
    assert layer.recurrent_weights()[0] is weight
    assert isinstance(weight, torch.nn.Parameter)
    assert not torch.equal(weight, before)


def test_a_shared_matrix_stays_shared_and_each_layer_drops_its_own_part_of_it() -> None:
    one, other = WeightDrop(INPUT, INPUT, GRUCell, RATE), WeightDrop(INPUT, INPUT, GRUCell, RATE)
    assert isinstance(one.layer, GRUCell)
    assert isinstance(other.layer, GRUCell)
    other.layer.load_state_dict(one.layer.state_dict())
    other.layer.from_hidden.weight = one.layer.from_hidden.weight
    x = torch.randn(BATCH, STEPS, INPUT)
    assert not torch.allclose(one(x)[0], other(x)[0])
    other(one(x)[0])[0].sum().backward()
    assert other.recurrent_weights()[0] is one.recurrent_weights()[0]
    assert torch.equal(one.eval()(x)[0], other.eval()(x)[0])


def test_each_direction_and_what_is_around_a_cell() -> None:
    both = Bidirectional(INPUT, HIDDEN, partial(WeightDrop, cell=LSTM, rate=RATE))
    assert len(both.recurrent_weights()) == 2
    assert both(torch.randn(BATCH, STEPS, INPUT))[0].shape == (BATCH, STEPS, 2 * HIDDEN)
    inner = WeightDrop(INPUT, HIDDEN, partial(Zoneout, cell=LSTMCell, hidden=0.0, memory=0.0), RATE)
    x = torch.randn(BATCH, STEPS, INPUT)
    assert not torch.allclose(inner(x)[0], inner(x)[0])


def test_a_rate_of_zero_is_the_layer_alone() -> None:
    layer, x = WeightDrop(INPUT, HIDDEN, LSTM, 0.0), torch.randn(BATCH, STEPS, INPUT)
    assert torch.equal(layer(x)[0], layer.layer(x)[0])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_the_rate_is_a_probability(rate: float) -> None:
    with pytest.raises(ValueError, match="the rate is a probability below 1"):
        WeightDrop(INPUT, HIDDEN, LSTM, rate)


def test_both_directions_at_once_are_refused() -> None:
    with pytest.raises(TypeError, match=r"WeightDrop drops weights of one direction: .* not Bidirectional"):
        WeightDrop(INPUT, HIDDEN, Bidirectional)
