"""What every recurrent layer promises, and both directions at once."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell, ResetFirstGRUCell, SharedMatrixCell, Zoneout
from lm.layers import GRU, LSTM, RNN, FusedLayer, LayerFactory, RecurrentLayer, State, SteppedLayer
from lm.lengths import reversed_in_time
from lm.minimal import MinGRU, MinLSTM
from lm.mogrifier import Mogrifier
from lm.network import RecurrentNetwork
from lm.qrnn import QRNN
from lm.recurrent_dropout import RecurrentDropoutGRU, RecurrentDropoutLSTM
from lm.sru import SRU
from lm.weight_drop import WeightDrop
from lm.window import FixedWindow

BATCH, STEPS, INPUT, HIDDEN = 3, 8, 4, 4
LAYERS: dict[str, LayerFactory] = {
    "RNN": RNN,
    "RNN-relu": partial(RNN, nonlinearity="relu"),
    "GRU": GRU,
    "LSTM": LSTM,
    "ElmanCell": ElmanCell,
    "ElmanCell-norm": partial(ElmanCell, layer_norm=True),
    "SharedMatrixCell": SharedMatrixCell,
    "GRUCell": GRUCell,
    "GRUCell-norm": partial(GRUCell, layer_norm=True),
    "ResetFirstGRUCell": ResetFirstGRUCell,
    "ResetFirstGRUCell-norm": partial(ResetFirstGRUCell, layer_norm=True),
    "LSTMCell": LSTMCell,
    "LSTMCell-norm": partial(LSTMCell, layer_norm=True),
    "Zoneout": Zoneout,
    "Zoneout-GRU": partial(Zoneout, cell=GRUCell),
    "WeightDrop": WeightDrop,
    "WeightDrop-GRUCell": partial(WeightDrop, cell=GRUCell),
    "RecurrentDropoutLSTM": partial(RecurrentDropoutLSTM, hidden=0.5),
    "RecurrentDropoutGRU": partial(RecurrentDropoutGRU, hidden=0.5, locked=False),
    "Zoneout-QRNN": partial(Zoneout, cell=partial(QRNN, window=2)),
    "Mogrifier": Mogrifier,
    "Mogrifier-rank": partial(Mogrifier, rounds=2, rank=2),
    "Mogrifier-LSTM": partial(Mogrifier, cell=LSTM),
    "MinGRU": MinGRU,
    "MinLSTM": MinLSTM,
    "QRNN": QRNN,
    "QRNN-2": partial(QRNN, window=2, zoneout=0.1),
    "QRNN-f": partial(QRNN, window=2, pooling="f"),
    "QRNN-ifo": partial(QRNN, pooling="ifo"),
    "SRU": SRU,
    "SRU-scanned": partial(SRU, peephole=False),
    "FixedWindow": FixedWindow,
}
every_layer = pytest.mark.parametrize("name", LAYERS)

pytestmark = pytest.mark.usefixtures("seed")


@every_layer
@pytest.mark.parametrize("cut", [1, 5])
def test_two_parts_with_the_state_carried_equal_one_pass(name: str, cut: int) -> None:
    layer = LAYERS[name](INPUT, HIDDEN).eval()
    x = torch.randn(BATCH, STEPS, INPUT)
    whole, end = layer(x)
    first, between = layer(x[:, :cut])
    second, last = layer(x[:, cut:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(last, end)


@every_layer
def test_no_state_stands_for_zeros(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN).eval()
    x = torch.randn(BATCH, STEPS, INPUT)
    out, end = layer(x)
    zeros = tuple(torch.zeros_like(part) for part in end)
    torch.testing.assert_close(layer(x, zeros), (out, end))


@every_layer
def test_shapes_and_the_state_whose_first_part_is_said_last(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN).eval()
    out, end = layer(torch.randn(BATCH, STEPS, INPUT))
    assert out.shape == (BATCH, STEPS, layer.output_size) == (BATCH, STEPS, HIDDEN)
    assert all(part.shape == (1, BATCH, HIDDEN) for part in end)
    torch.testing.assert_close(end[0][0], out[:, -1])


@every_layer
def test_a_step_does_not_see_those_after_it(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN).eval()
    x = torch.randn(BATCH, STEPS, INPUT)
    changed = x.clone()
    changed[:, 5] += 1
    before, after = layer(x)[0], layer(changed)[0]
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


@every_layer
def test_recurrent_and_input_weights_are_all_matrices_and_stacked_by_gate(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN)
    recurrent = layer.recurrent_weights()
    assert len(recurrent) == (not any(scanned in name for scanned in ("Min", "QRNN", "SRU", "Window")))
    assert all(weight.shape == (layer.gates * HIDDEN, HIDDEN) for weight in recurrent)
    words = layer.words if isinstance(layer, FixedWindow) else 1
    assert all(weight.shape == (layer.gates * HIDDEN, words * INPUT) for weight in layer.input_weights())
    found = {id(weight) for weight in [*recurrent, *layer.input_weights()]}
    whole = layer.cell if isinstance(layer, Mogrifier) else layer  # its own matrices hold no gates of the cell
    assert found == {id(weight) for weight in whole.parameters() if weight.dim() == 2}


@pytest.mark.parametrize("name", ["RNN", "ElmanCell"])
def test_without_recurrent_weights_nothing_is_remembered(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN)
    layer.recurrent_weights()[0].data.zero_()
    x = torch.randn(BATCH, 1, INPUT)
    torch.testing.assert_close(layer(x, (torch.randn(1, BATCH, HIDDEN),))[0], layer(x)[0])


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "SharedMatrixCell"])
@pytest.mark.parametrize("training", [True, False])
def test_autocast_reads_and_learns_with_a_carried_fp32_state(name: str, training: bool) -> None:
    network = RecurrentNetwork(11, embedding_size=6, layer_sizes=[48, 32], cell=LAYERS[name]).train(training)
    first, second = torch.randint(11, (2, BATCH, STEPS))
    weights = torch.randn(BATCH, STEPS, 32)
    state = tuple(tuple(part.detach() for part in layer) for layer in network(first).state)
    exact = network(second, state).hidden
    exact_gradients = torch.autograd.grad((exact * weights).sum(), list(network.parameters()))
    with torch.autocast("cpu", torch.bfloat16):
        hidden = network(second, state).hidden
    gradients = torch.autograd.grad((hidden.float() * weights).sum(), list(network.parameters()))
    assert all(gradient.isfinite().all() for gradient in gradients)
    random = name.startswith(("Zoneout", "WeightDrop", "RecurrentDropout")) or name == "QRNN-2"
    if not (training and random):  # whose masks differ from one pass to the next
        torch.testing.assert_close(hidden.float(), exact, rtol=0.1, atol=0.05)
        wanted, got = (torch.cat([part.flatten() for part in parts]) for parts in (exact_gradients, gradients))
        assert cosine_similarity(got, wanted, dim=0) > 0.98


BOTH: dict[str, tuple[LayerFactory, Callable[..., nn.RNNBase]]] = {
    "LSTM": (LSTM, nn.LSTM),
    "GRU": (GRU, nn.GRU),
    "RNN": (RNN, nn.RNN),
}


def bidirectional(name: str) -> tuple[Bidirectional, nn.RNNBase]:
    """Ours and torch's with the same weights."""
    make, make_torch = BOTH[name]
    theirs = make_torch(INPUT, HIDDEN, batch_first=True, bidirectional=True)
    ours = Bidirectional(INPUT, HIDDEN, make)
    for layer, weights in zip((ours.ahead, ours.back), theirs.all_weights, strict=True):
        for parameter, weight in zip(layer.parameters(), weights, strict=True):
            parameter.data.copy_(weight)
    return ours, theirs


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("given", [True, False])
def test_both_directions_are_torchs_in_outputs_and_in_the_layout_of_states(name: str, given: bool) -> None:
    ours, theirs = bidirectional(name)
    x = torch.randn(BATCH, STEPS, INPUT)
    state: State | None = tuple(torch.randn(2, BATCH, HIDDEN) for _ in range(2 if name == "LSTM" else 1)) if given else None
    expected, end = theirs(x, state if state is None or name == "LSTM" else state[0])
    out, (hidden, *memory) = ours(x, state)
    assert ours.output_size == out.shape[-1] == 2 * HIDDEN
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close((hidden, *memory), end if name == "LSTM" else (end,))


def test_both_directions_of_a_cell_equal_those_of_its_fused_twin() -> None:
    fused, cells = Bidirectional(INPUT, HIDDEN, LSTM), Bidirectional(INPUT, HIDDEN, LSTMCell)
    for layer, cell in ((fused.ahead, cells.ahead), (fused.back, cells.back)):
        assert isinstance(layer, FusedLayer)
        assert isinstance(cell, LSTMCell)
        input_weight, hidden_weight, input_bias, hidden_bias = layer.rnn.all_weights[0]
        cell.from_input.weight.data.copy_(input_weight)
        cell.from_input.bias.data.copy_(input_bias + hidden_bias)
        cell.from_hidden.weight.data.copy_(hidden_weight)
    x = torch.randn(BATCH, STEPS, INPUT)
    torch.testing.assert_close(cells(x), fused(x), rtol=1e-5, atol=1e-5)


def test_both_directions_name_the_weights_of_each() -> None:
    layer: RecurrentLayer = Bidirectional(INPUT, HIDDEN, GRU)
    assert [tuple(weight.shape) for weight in layer.recurrent_weights()] == [(3 * HIDDEN, HIDDEN)] * 2
    assert len(layer.input_weights()) == 2


# Lengths and steps


@every_layer
@pytest.mark.parametrize("bidirectional", [False, True])
def test_what_stands_behind_a_length_is_not_read(name: str, bidirectional: bool) -> None:
    factory = partial(Bidirectional, cell=LAYERS[name]) if bidirectional else LAYERS[name]
    layer = factory(INPUT, HIDDEN).eval()
    x, lengths = torch.randn(BATCH, STEPS, INPUT), [STEPS, 3, 1]
    y, state = layer(x, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, its_state = layer(x[row : row + 1, :length])
        torch.testing.assert_close(y[row, :length], alone[0])
        assert (y[row, length:] == 0).all()
        for part, single in zip(state, its_state, strict=True):
            torch.testing.assert_close(part[:, row], single[:, 0])


@every_layer
def test_steps_equal_the_whole_and_a_part_of_the_input_can_be_projected_ahead(name: str) -> None:
    layer = LAYERS[name](INPUT, HIDDEN).eval()
    assert isinstance(layer, SteppedLayer)
    x = torch.randn(BATCH, STEPS, INPUT)
    y, end = layer(x)
    for known in (0, 3, INPUT) if name != "SharedMatrixCell" else (2,):
        project, state = layer.project_ahead(x[..., :known]), layer.first_state(x)
        for time in range(STEPS):
            state = layer.step(project(time, x[:, time, known:]), state)
            torch.testing.assert_close(state[0], y[:, time])
        torch.testing.assert_close(tuple(part.unsqueeze(0) for part in state), end)


def test_a_fused_layer_is_one_batch_first_layer_of_one_direction() -> None:
    class Other(FusedLayer):
        def step(self, x: Tensor, state: State) -> State:
            return (x, *state)

    for settings in ({"num_layers": 2}, {"bidirectional": True}, {"batch_first": False}):
        with pytest.raises(ValueError, match="FusedLayer holds one batch-first layer of one direction, got GRU"):
            Other(nn.GRU(3, 4, **{"batch_first": True, **settings}))


def test_reversing_in_time_leaves_padding_where_it_is() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0, 0.0], [4.0, 0.0, 0.0, 0.0]])[:, :, None]
    reverse = reversed_in_time(x, torch.tensor([3, 1])).squeeze(2)
    assert reverse.tolist() == [[3, 2, 1, 0], [4, 0, 0, 0]]
    assert reversed_in_time(x).squeeze(2).tolist() == [[0, 3, 2, 1], [0, 0, 0, 4]]
