"""Cells against torch's fused networks, and against their equations written once more."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GatedCell, GRUCell, LSTMCell, ResetFirstGRUCell, SharedMatrixCell, Zoneout
from lm.layers import GRU, LSTM, RNN, Cell, LayerFactory, State
from lm.minimal import MinGRU, MinLSTM
from lm.mogrifier import Mogrifier
from lm.qrnn import QRNN
from lm.sru import SRU

BATCH, STEPS, INPUT, HIDDEN = 3, 6, 5, 4

TWINS: dict[str, tuple[Callable[[int, int], GatedCell], Callable[..., nn.RNNBase]]] = {
    "tanh": (ElmanCell, nn.RNN),
    "relu": (partial(ElmanCell, activation="relu"), partial(nn.RNN, nonlinearity="relu")),
    "gru": (GRUCell, nn.GRU),
    "lstm": (LSTMCell, nn.LSTM),
}

pytestmark = pytest.mark.usefixtures("seed")


def unroll(cell: Cell, x: Tensor, state: State) -> tuple[Tensor, State]:
    """The layer as a loop over single steps."""
    said = []
    for now in x.unbind(dim=1):
        state = cell.step(cell.project(now[:, None])[:, 0], state)
        said.append(state[0])
    return torch.stack(said, dim=1), state


def gate(product: Tensor, index: int) -> Tensor:
    return product[..., index * HIDDEN : (index + 1) * HIDDEN]


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    """LN of Ba et al. (2016), eq. 4: gain ⊙ (x − μ)/σ + bias."""
    assert isinstance(norm, nn.LayerNorm)
    centred = x - x.mean(dim=-1, keepdim=True)
    return norm.weight * centred / (centred.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt() + norm.bias


def shake(cell: nn.Module) -> None:
    """Give every parameter a value of its own, so that none can be left out unnoticed."""
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.7)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("name", TWINS)
def test_a_cell_computes_what_its_fused_twin_does(name: str, layers: int) -> None:
    make_cell, make_fused = TWINS[name]
    fused = make_fused(INPUT, HIDDEN, num_layers=layers, batch_first=True)
    cells = [make_cell(INPUT if layer == 0 else HIDDEN, HIDDEN) for layer in range(layers)]
    for cell, (input_weight, hidden_weight, input_bias, hidden_bias) in zip(cells, fused.all_weights, strict=True):
        cell.from_input.weight.data.copy_(input_weight)
        cell.from_hidden.weight.data.copy_(hidden_weight)
        cell.from_input.bias.data.copy_(input_bias if cell.recurrent_bias else input_bias + hidden_bias)
        if cell.recurrent_bias:
            cell.from_hidden.bias.data.copy_(hidden_bias)

    x = torch.randn(BATCH, STEPS, INPUT)
    start = tuple(torch.randn(layers, BATCH, HIDDEN) for _ in range(cells[0].state_parts))
    ours, twins = ((x.clone().requires_grad_(), tuple(part.clone().requires_grad_() for part in start)) for _ in range(2))
    out, ends = ours[0], []
    for layer, cell in enumerate(cells):
        out, end = cell(out, tuple(part[layer : layer + 1] for part in ours[1]))
        ends.append(end)
    end = tuple(torch.cat(parts) for parts in zip(*ends, strict=True))
    expected, expected_end = fused(twins[0], twins[1] if isinstance(fused, nn.LSTM) else twins[1][0])
    expected_end = expected_end if isinstance(fused, nn.LSTM) else (expected_end,)

    close = partial(torch.testing.assert_close, rtol=1e-5, atol=1e-5)
    close(out, expected)
    close(end, expected_end)
    weights = torch.randn_like(out)
    ((out * weights).sum() + sum(part.square().sum() for part in end)).backward()
    ((expected * weights).sum() + sum(part.square().sum() for part in expected_end)).backward()
    close(ours[0].grad, twins[0].grad)
    for part, twin in zip(ours[1], twins[1], strict=True):
        close(part.grad, twin.grad)
    for cell, (input_weight, hidden_weight, input_bias, hidden_bias) in zip(cells, fused.all_weights, strict=True):
        close(cell.from_input.weight.grad, input_weight.grad)
        close(cell.from_hidden.weight.grad, hidden_weight.grad)
        close(cell.from_input.bias.grad, input_bias.grad)
        if cell.recurrent_bias:
            close(cell.from_hidden.bias.grad, hidden_bias.grad)


@pytest.mark.parametrize(
    ("activation", "phi"),
    [("tanh", torch.tanh), ("relu", torch.relu), ("sigmoid", torch.sigmoid), ("leaky_relu", leaky_relu)],
)
def test_an_elman_cell_applies_its_activation(activation: str, phi: Callable[[Tensor], Tensor]) -> None:
    cell = ElmanCell(INPUT, HIDDEN, activation=activation)  # type: ignore[arg-type]
    x, hidden = torch.randn(BATCH, 1, INPUT), torch.randn(1, BATCH, HIDDEN)
    expected = phi(x[:, 0] @ cell.from_input.weight.T + cell.from_input.bias + hidden[0] @ cell.from_hidden.weight.T)
    torch.testing.assert_close(cell(x, (hidden,))[0][:, 0], expected)


def test_a_reset_first_gru_is_its_equations() -> None:
    cell = ResetFirstGRUCell(INPUT, HIDDEN)
    shake(cell)
    (w_xr, w_xu, w_xh), (b_r, b_u, b_h) = cell.from_input.weight.chunk(3), cell.from_input.bias.chunk(3)
    w_hr, w_hu, w_hh = cell.from_hidden.weight.chunk(3)
    x, h = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN)
    out, _ = cell(x, (h[None],))
    for t in range(STEPS):
        r = torch.sigmoid(linear(x[:, t], w_xr, b_r) + linear(h, w_hr))
        u = torch.sigmoid(linear(x[:, t], w_xu, b_u) + linear(h, w_hu))
        candidate = torch.tanh(linear(x[:, t], w_xh, b_h) + linear(r * h, w_hh))
        h = u * h + (1 - u) * candidate
        torch.testing.assert_close(out[:, t], h)


def test_the_two_grus_differ_by_where_the_reset_gate_acts() -> None:
    after, before = GRUCell(INPUT, HIDDEN), ResetFirstGRUCell(INPUT, HIDDEN)
    before.from_input.load_state_dict(after.from_input.state_dict())
    before.from_hidden.weight.data.copy_(after.from_hidden.weight)
    nn.init.zeros_(after.from_hidden.bias)
    x, h = torch.randn(BATCH, 1, INPUT), torch.randn(1, BATCH, HIDDEN)
    torch.testing.assert_close(after(x)[0], before(x)[0])  # no state, nothing to reset
    assert not torch.allclose(after(x, (h,))[0], before(x, (h,))[0], atol=1e-3)


def test_a_shared_matrix_cell_is_a_loop_over_a_perceptron() -> None:
    cell = SharedMatrixCell(HIDDEN, HIDDEN)
    x, h = torch.randn(BATCH, STEPS, HIDDEN), torch.zeros(BATCH, HIDDEN)
    out, (last,) = cell(x)
    for t in range(STEPS):
        h = (h + x[:, t]) @ cell.from_hidden.weight.T + cell.from_hidden.bias
        h = h.clamp(min=0)
        torch.testing.assert_close(out[:, t], h)
    torch.testing.assert_close(last[0], h)


def test_a_shared_matrix_cell_refuses_unequal_sizes() -> None:
    with pytest.raises(ValueError, match="as many features as the layer has, not 5 and 4"):
        SharedMatrixCell(INPUT, HIDDEN)


class TestLayerNorm:
    """Ba et al. (2016), eq. 20: LN(W_h h) + LN(W_x x) + b, where b is in the biases of LN."""

    def products(self, cell: GatedCell, x: Tensor, hidden: Tensor) -> Tensor:
        from_input = normalise(x @ cell.from_input.weight.T, cell.norm_input)
        return from_input + normalise(hidden @ cell.from_hidden.weight.T, cell.norm_hidden)

    def test_an_lstm_is_equations_20_to_22(self) -> None:
        cell = LSTMCell(INPUT, HIDDEN, layer_norm=True)
        shake(cell)
        x, h, c = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN), torch.randn(BATCH, HIDDEN)
        out, end = cell(x, (h[None], c[None]))
        for t in range(STEPS):
            i, f, g, o = self.products(cell, x[:, t], h).chunk(4, dim=-1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * normalise(c, cell.norm_memory).tanh()
            torch.testing.assert_close(out[:, t], h, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(end, (h[None], c[None]), rtol=1e-4, atol=1e-5)

    def test_an_elman_cell_normalises_both_products(self) -> None:
        cell = ElmanCell(INPUT, HIDDEN, layer_norm=True)
        shake(cell)
        x, h = torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
        out, _ = cell(x[:, None], (h[None],))
        torch.testing.assert_close(out[:, 0], self.products(cell, x, h).tanh())

    def test_a_gru_normalises_the_recurrent_product_before_it_is_reset(self) -> None:
        cell = GRUCell(INPUT, HIDDEN, layer_norm=True)
        shake(cell)
        x, h = torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
        out, _ = cell(x[:, None], (h[None],))
        of_x = normalise(x @ cell.from_input.weight.T, cell.norm_input)
        of_h = normalise(h @ cell.from_hidden.weight.T, cell.norm_hidden)
        r, u = ((gate(of_x, i) + gate(of_h, i)).sigmoid() for i in (0, 1))
        expected = u * h + (1 - u) * (gate(of_x, 2) + r * gate(of_h, 2)).tanh()
        torch.testing.assert_close(out[:, 0], expected)

    def test_a_reset_first_gru_normalises_its_two_recurrent_products_apart(self) -> None:
        cell = ResetFirstGRUCell(INPUT, HIDDEN, layer_norm=True)
        shake(cell)
        x, h = torch.randn(BATCH, INPUT), torch.randn(BATCH, HIDDEN)
        out, _ = cell(x[:, None], (h[None],))
        of_x = normalise(x @ cell.from_input.weight.T, cell.norm_input)
        gates, candidate = cell.from_hidden.weight[: 2 * HIDDEN], cell.from_hidden.weight[2 * HIDDEN :]
        r, u = (of_x[:, : 2 * HIDDEN] + normalise(h @ gates.T, cell.norm_gates)).sigmoid().chunk(2, dim=-1)
        expected = u * h + (1 - u) * (gate(of_x, 2) + normalise((r * h) @ candidate.T, cell.norm_candidate)).tanh()
        torch.testing.assert_close(out[:, 0], expected)

    @pytest.mark.parametrize("make", [ElmanCell, GRUCell, LSTMCell])
    def test_the_size_of_a_product_does_not_matter(self, make: Callable[..., GatedCell]) -> None:
        cell = make(INPUT, HIDDEN, layer_norm=True)
        shake(cell)  # to products that LN's ε is small beside
        x, start = torch.randn(BATCH, STEPS, INPUT), tuple(torch.randn(1, BATCH, HIDDEN) for _ in range(cell.state_parts))
        before, _ = cell(x, start)
        for weight in (cell.from_input.weight, cell.from_hidden.weight):
            weight.data.mul_(100)
        torch.testing.assert_close(cell(x, start)[0], before, rtol=1e-3, atol=1e-3)


CELLS: dict[str, Callable[[], Cell]] = {
    "elman": lambda: ElmanCell(INPUT, HIDDEN),
    "shared": lambda: SharedMatrixCell(HIDDEN, HIDDEN),
    "gru": lambda: GRUCell(INPUT, HIDDEN),
    "reset-first": lambda: ResetFirstGRUCell(INPUT, HIDDEN),
    "lstm": lambda: LSTMCell(INPUT, HIDDEN),
    "norm": lambda: LSTMCell(INPUT, HIDDEN, layer_norm=True),
    "zoneout": lambda: Zoneout(INPUT, HIDDEN),
    "mogrifier": lambda: Mogrifier(INPUT, HIDDEN),
    "mingru": lambda: MinGRU(INPUT, HIDDEN),
    "minlstm": lambda: MinLSTM(INPUT, HIDDEN),
    "qrnn": lambda: QRNN(INPUT, HIDDEN, window=2),
    "sru": lambda: SRU(INPUT, HIDDEN),
    "sru-scanned": lambda: SRU(INPUT, HIDDEN, peephole=False),
}


@pytest.mark.parametrize("name", CELLS)
def test_single_steps_make_the_layer(name: str) -> None:
    cell = CELLS[name]().eval()
    x = torch.randn(BATCH, STEPS, cell.input_size)
    out, end = cell(x)
    steps, last = unroll(cell, x, cell.first_state(x))
    torch.testing.assert_close(steps, out)
    torch.testing.assert_close(tuple(part[None] for part in last), end)


class TestZoneout:
    def start(self) -> tuple[Tensor, State]:
        return torch.randn(BATCH, STEPS, INPUT), tuple(torch.randn(1, BATCH, HIDDEN) for _ in range(2))

    @pytest.mark.parametrize("training", [True, False])
    def test_a_rate_of_0_is_the_plain_cell(self, training: bool) -> None:
        layer = Zoneout(INPUT, HIDDEN, hidden=0, memory=0).train(training)
        x, state = self.start()
        torch.testing.assert_close(layer(x, state), layer.cell(x, state))

    @pytest.mark.parametrize("training", [True, False])
    def test_a_rate_of_1_keeps_the_state(self, training: bool) -> None:
        layer = Zoneout(INPUT, HIDDEN, hidden=1, memory=1).train(training)
        x, state = self.start()
        out, end = layer(x, state)
        torch.testing.assert_close(end, state)
        torch.testing.assert_close(out, state[0].transpose(0, 1).expand(-1, STEPS, -1))

    def test_rates_of_h_and_of_the_memory_are_apart(self) -> None:
        layer = Zoneout(INPUT, HIDDEN, hidden=0, memory=1)
        x, (h, c) = self.start()
        _, (new_h, new_c) = layer(x, (h, c))
        assert torch.equal(new_c, c)
        assert not (new_h == h).any()

    def test_in_training_units_keep_their_value_as_often_as_the_rate_says(self) -> None:
        layer = Zoneout(1, 4000, cell=GRUCell, hidden=0.3)
        state = torch.randn(1, 2, 4000)
        x = torch.randn(2, 1, 1)
        _, (new,) = layer(x, (state,))
        _, (plain,) = layer.cell(x, (state,))
        kept = new == state
        assert torch.equal(torch.where(kept, state, plain), new)
        deviation = (0.3 * 0.7 / kept.numel()) ** 0.5
        assert abs(kept.float().mean().item() - 0.3) < 4 * deviation
        assert not torch.equal(kept[:, 0], kept[:, 1])

    def test_in_evaluation_the_state_is_the_mean_of_those_in_training(self) -> None:
        layer = Zoneout(INPUT, HIDDEN, hidden=0.2, memory=0.6).eval()
        x, state = self.start()
        projected = layer.project(x)[:, 0]
        old = tuple(part[0] for part in state)
        new = layer.cell.step(projected, old)
        h, c = layer.step(projected, old)
        torch.testing.assert_close(h, 0.2 * old[0] + 0.8 * new[0])
        torch.testing.assert_close(c, 0.6 * old[1] + 0.4 * new[1])

    @pytest.mark.parametrize("fused", [RNN, GRU, LSTM])
    def test_of_a_fused_layer_it_takes_the_steps(self, fused: LayerFactory) -> None:
        layer = Zoneout(INPUT, HIDDEN, cell=fused, hidden=0, memory=0)
        x = torch.randn(3, 6, INPUT)
        torch.testing.assert_close(layer(x), layer.cell(x))

    def test_a_layer_without_steps_is_refused(self) -> None:
        with pytest.raises(TypeError, match=r"give it a layer that has steps, such as lm\.cells\.LSTMCell, not Bidirectional"):
            Zoneout(INPUT, HIDDEN, cell=Bidirectional)

    @pytest.mark.parametrize(("hidden", "memory"), [(-0.1, 0.5), (0.5, 1.5)])
    def test_rates_are_probabilities(self, hidden: float, memory: float) -> None:
        with pytest.raises(ValueError, match=f"from 0 to 1, got hidden={hidden}, memory={memory}"):
            Zoneout(INPUT, HIDDEN, hidden=hidden, memory=memory)
