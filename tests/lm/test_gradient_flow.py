"""Norms of activations and gradients through time."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from datamodules.streams import Window
from lm.batch_norm import BatchNormElmanCell
from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell
from lm.gradient_flow import Flow, gradient_flow
from lm.heads import LinearHead
from lm.layers import GRU, LSTM, LayerFactory, RecurrentLayer
from lm.minimal import MinGRU
from lm.network import RecurrentNetwork

pytestmark = pytest.mark.usefixtures("seed")

BATCH, STEPS, VOCAB, HIDDEN = 3, 5, 7, 4


def window() -> Window:
    return Window(torch.randint(VOCAB, (BATCH, STEPS)), torch.randint(VOCAB, (BATCH, STEPS)))


def make(cell: LayerFactory, **settings: float) -> tuple[RecurrentNetwork, LinearHead]:
    network = RecurrentNetwork(VOCAB, embedding_size=3, layer_sizes=[HIDDEN], cell=cell, **settings)  # type: ignore[arg-type]
    return network, LinearHead(HIDDEN, VOCAB)


def test_a_linear_recurrence_comes_through_by_the_powers_of_its_matrix() -> None:
    """h_t = 0.9 R h_{t−1} + ..., R a rotation, within the linear part of ReLU."""
    network, head = make(partial(ElmanCell, activation="relu"))
    (layer,) = network.layers
    assert isinstance(layer, ElmanCell)
    with torch.no_grad():
        layer.from_hidden.weight.copy_(0.9 * torch.eye(HIDDEN).roll(1, dims=0))
        layer.from_input.weight.abs_()
        layer.from_input.bias.fill_(5.0)
        network.embedding.weight.abs_()  # type: ignore[operator]
    (flow,) = gradient_flow(network, head, window())
    assert flow.of_last.tolist() == pytest.approx([0.9 ** (STEPS - 1 - t) for t in range(STEPS)])


@pytest.mark.parametrize("cell", [ElmanCell, GRUCell, LSTMCell, LSTM, GRU, MinGRU])
def test_it_is_what_a_state_that_is_moved_a_little_changes(cell: LayerFactory) -> None:
    """Against finite differences of the same window, begun again from the state after each step."""
    network, head = make(cell)
    batch = window()
    (flow,) = gradient_flow(network, head, batch, rows=1)
    network, head = network.double().train(), head.double()
    (layer,) = network.layers
    assert isinstance(layer, RecurrentLayer)
    x = network.embed(batch.tokens).double()
    said, state = [], None
    for time in range(STEPS - 1):
        out, state = layer(x[:, time : time + 1], state)
        said.append(out[:, 0])

        def last(*parts: Tensor, start: int = time + 1) -> Tensor:
            said: Tensor = layer(x[:, start:], parts)[0]
            return said[0, -1]

        jacobian = torch.autograd.functional.jacobian(last, state)  # type: ignore[no-untyped-call]
        whole = torch.cat([part[:, 0, 0] for part in jacobian], dim=-1)
        assert float(flow.of_last[time]) == pytest.approx(float(torch.linalg.matrix_norm(whole, ord=2)), rel=1e-6)
    assert flow.activations[:-1].tolist() == pytest.approx([float(out.detach().norm(dim=1).mean()) for out in said])


def test_the_gradient_of_the_loss_is_that_of_all_losses_from_a_step_on() -> None:
    network, head = make(ElmanCell)
    batch = window()
    (flow,) = gradient_flow(network, head, batch)
    network, head = network.double(), head.double()
    hidden = network(batch.tokens).hidden
    at_last = torch.autograd.grad(head.loss(hidden, batch.targets, torch.ones(BATCH, STEPS).double()).total, hidden)[0][:, -1]
    assert float(flow.of_loss[-1]) == pytest.approx(float(at_last.norm(dim=1).mean()))
    assert float(flow.of_last[-1]) == pytest.approx(1)


def test_every_layer_is_measured_and_nothing_is_left_behind() -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=3, layer_sizes=[HIDDEN, 6], cell=BatchNormElmanCell, layer_dropout=0.5)
    head = LinearHead(6, VOCAB)
    network.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = window()
    first, second = gradient_flow(network, head, batch), gradient_flow(network, head, batch)
    assert [len(flow.of_last) for flow in first] == [STEPS, STEPS]
    for one, other in zip(first, second, strict=True):
        assert all(map(torch.equal, one, other))  # without dropout
    assert not network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_upper_layer_passes_gradients_down() -> None:
    """Where the upper layer reads nothing of the lower one, no loss comes to it."""
    network = RecurrentNetwork(VOCAB, embedding_size=3, layer_sizes=[HIDDEN, HIDDEN], cell=ElmanCell)
    upper = network.layers[1]
    assert isinstance(upper, ElmanCell)
    nn.init.zeros_(upper.from_input.weight)
    lower, above = gradient_flow(network, LinearHead(HIDDEN, VOCAB), window())
    assert float(lower.of_loss.max()) == 0 < float(above.of_loss.min())


def test_a_sigmoid_forgets_faster_than_an_orthogonal_tanh() -> None:
    flows: list[Flow] = []
    for activation in ("sigmoid", "tanh"):
        network, head = make(partial(ElmanCell, activation=activation))
        nn.init.orthogonal_(network.layers[0].from_hidden.weight)  # type: ignore[union-attr, arg-type]
        flows += gradient_flow(network, head, window())
    assert float(flows[0].of_last[0]) < 0.25**4 < float(flows[1].of_last[0])


@pytest.mark.parametrize("cell", [partial(Bidirectional, cell=GRU)])
def test_a_layer_without_steps_is_refused(cell: Callable[..., RecurrentLayer]) -> None:
    network = RecurrentNetwork(VOCAB, embedding_size=3, layer_sizes=[HIDDEN], cell=cell)
    with pytest.raises(TypeError, match="measured between steps, and Bidirectional has none"):
        gradient_flow(network, LinearHead(2 * HIDDEN, VOCAB), window())
