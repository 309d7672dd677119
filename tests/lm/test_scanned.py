"""Cells that run all steps at once, against themselves step by step: other sizes and longer texts than those of test_layers."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lm.bidirectional import Bidirectional
from lm.layers import Cell, LayerFactory, State
from lm.minimal import MinGRU, MinLSTM
from lm.network import RecurrentNetwork
from lm.qrnn import QRNN
from lm.scanned import ScannedCell
from lm.sru import SRU

BATCH, STEPS, INPUT, HIDDEN = 3, 50, 5, 4
CELLS: dict[str, LayerFactory] = {
    "MinGRU": MinGRU,
    "MinLSTM": MinLSTM,
    "QRNN": QRNN,
    "QRNN-2": partial(QRNN, window=2),
    "QRNN-f": partial(QRNN, window=2, pooling="f"),
    "QRNN-ifo": partial(QRNN, window=2, pooling="ifo", zoneout=0.2),
    "SRU": partial(SRU, peephole=False),
}
every_cell = pytest.mark.parametrize("name", CELLS)

pytestmark = pytest.mark.usefixtures("seed")


def made(name: str, dtype: torch.dtype = torch.float64) -> ScannedCell:
    cell = CELLS[name](INPUT, HIDDEN).to(dtype).eval()
    assert isinstance(cell, ScannedCell)
    return cell


def start(cell: ScannedCell, dtype: torch.dtype = torch.float64) -> State:
    return tuple(torch.randn_like(part).to(dtype)[None] for part in cell.first_state(torch.empty(BATCH, INPUT, dtype=dtype)))


@every_cell
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("lengths", [None, [STEPS, 17, 1]])
def test_all_steps_at_once_are_the_loop_with_its_gradients(
    name: str, dtype: torch.dtype, tolerance: float, lengths: list[int] | None
) -> None:
    cell = made(name, dtype)
    x = torch.randn(BATCH, STEPS, INPUT, dtype=dtype, requires_grad=True)
    inputs = [x, *(part.requires_grad_() for part in start(cell, dtype))]
    weights = torch.randn(BATCH, STEPS, HIDDEN, dtype=dtype)
    results = []
    for forward in (cell.forward, partial(Cell.forward, cell)):
        y, after = forward(x, tuple(inputs[1:]), None if lengths is None else torch.tensor(lengths))
        loss = (y * weights).sum() + sum(part.square().sum() for part in after)
        results.append((y, after, torch.autograd.grad(loss, [*inputs, *cell.parameters()], materialize_grads=True)))
    at_once, looped = results
    for ours, theirs in zip(at_once, looped, strict=True):
        assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@every_cell
@pytest.mark.parametrize("cut", [1, 20])
def test_the_state_after_a_window_begins_the_next(name: str, cut: int) -> None:
    cell = made(name)
    x, before = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64), start(cell)
    whole, end = cell(x, before)
    first, between = cell(x[:, :cut], before)
    second, last = cell(x[:, cut:], between)
    assert_close(torch.cat([first, second], dim=1), whole)
    assert_close(last, end)


@every_cell
def test_both_directions_end_where_their_rows_do(name: str) -> None:
    layer = Bidirectional(INPUT, HIDDEN, CELLS[name]).double().eval()
    x, lengths = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64), [STEPS, 17, 1]
    y, state = layer(x, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone, its_state = layer(x[row : row + 1, :length])
        assert_close(y[row, :length], alone[0])
        assert_close([part[:, row] for part in state], [part[:, 0] for part in its_state])


@every_cell
def test_a_residual_stack_goes_step_by_step(name: str) -> None:
    network = RecurrentNetwork(11, embedding_size=6, layer_sizes=[6, 6, 4], cell=CELLS[name], residual=True).double().eval()
    tokens = torch.randint(11, (BATCH, 9))
    whole = network(tokens)
    state = None
    said: list[Tensor] = []
    for token in tokens.unbind(1):
        output = network(token[:, None], state)
        said.append(output.hidden)
        state = output.state
    assert_close(torch.cat(said, dim=1), whole.hidden)
    assert_close(state, whole.state)


@every_cell
def test_a_model_in_half_precision_says_half_precision(name: str) -> None:
    """And its gates are wider: beside the same weights in fp64, the rounding of products is all that is lost."""
    exact, half = made(name), made(name)
    half.load_state_dict(exact.state_dict())
    x = torch.randn(BATCH, STEPS, INPUT).bfloat16()
    y, _ = half.bfloat16()(x)
    assert y.dtype == torch.bfloat16
    exact.load_state_dict(half.double().state_dict())
    assert_close(y.double(), exact(x.double())[0], rtol=0.05, atol=0.05)


@every_cell
def test_an_unread_state_gets_no_gradient_from_behind_a_length(name: str) -> None:
    cell = made(name)
    x = torch.randn(BATCH, STEPS, INPUT, dtype=torch.float64, requires_grad=True)
    y, after = cell(x, None, torch.full((BATCH,), 10))
    loss = y.square().sum() + sum(part.square().sum() for part in after)
    (gradient,) = torch.autograd.grad(loss, x)
    assert (gradient[:, 10:] == 0).all()
    assert (gradient[:, :10] != 0).any(dim=2).all()
