"""From a cell to a fused layer and back: the same function."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from lm.cells import ElmanCell, GatedCell, GRUCell, LSTMCell, ResetFirstGRUCell, SharedMatrixCell, Zoneout
from lm.conversion import from_fused, to_fused
from lm.layers import GRU, LSTM, RNN, FusedLayer

BATCH, STEPS, INPUT, HIDDEN = 2, 5, 3, 4
CELLS: dict[str, tuple[Callable[[int, int], GatedCell], type[FusedLayer]]] = {
    "tanh": (ElmanCell, RNN),
    "relu": (partial(ElmanCell, activation="relu"), RNN),
    "gru": (GRUCell, GRU),
    "lstm": (LSTMCell, LSTM),
}
FUSED: dict[str, Callable[[int, int], FusedLayer]] = {
    "tanh": RNN,
    "relu": partial(RNN, nonlinearity="relu"),
    "gru": GRU,
    "lstm": LSTM,
}

pytestmark = pytest.mark.usefixtures("seed")


def compare(one: nn.Module, other: nn.Module, parts: int, dtype: torch.dtype = torch.float32) -> None:
    x = torch.randn(BATCH, STEPS, INPUT, dtype=dtype)
    state = tuple(torch.randn(1, BATCH, HIDDEN, dtype=dtype) for _ in range(parts))
    torch.testing.assert_close(one(x, state), other(x, state), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_becomes_its_fused_twin_and_comes_back(name: str) -> None:
    make, kind = CELLS[name]
    cell = make(INPUT, HIDDEN)
    fused = to_fused(cell)
    assert type(fused) is kind
    compare(cell, fused, cell.state_parts)
    back = from_fused(fused)
    assert type(back) is type(cell)
    for weight, again in zip(cell.parameters(), back.parameters(), strict=True):
        assert torch.equal(weight, again)


@pytest.mark.parametrize("name", FUSED)
def test_a_fused_layer_becomes_a_cell(name: str) -> None:
    layer = FUSED[name](INPUT, HIDDEN)
    cell = from_fused(layer)
    compare(layer, cell, cell.state_parts)


@pytest.mark.parametrize("name", CELLS)
def test_a_conversion_keeps_the_precision(name: str) -> None:
    cell = CELLS[name][0](INPUT, HIDDEN).double()
    fused = to_fused(cell)
    compare(cell, fused, cell.state_parts, torch.float64)
    compare(fused, from_fused(fused), cell.state_parts, torch.float64)


def test_a_conversion_copies() -> None:
    cell = LSTMCell(INPUT, HIDDEN)
    fused = to_fused(cell)
    (weight,) = fused.recurrent_weights()
    nn.init.zeros_(cell.from_hidden.weight)
    assert weight.all()


@pytest.mark.parametrize(
    ("cell", "named"),
    [
        (ResetFirstGRUCell(INPUT, HIDDEN), "ResetFirstGRUCell"),
        (SharedMatrixCell(HIDDEN, HIDDEN), "SharedMatrixCell"),
        (Zoneout(INPUT, HIDDEN), "Zoneout"),
        (ElmanCell(INPUT, HIDDEN, activation="sigmoid"), "ElmanCell"),
        (ElmanCell(INPUT, HIDDEN, activation="leaky_relu"), "ElmanCell"),
        (LSTMCell(INPUT, HIDDEN, layer_norm=True), "with layer normalisation: keep LSTMCell"),
        (GRUCell(INPUT, HIDDEN, layer_norm=True), "with layer normalisation: keep GRUCell"),
    ],
)
def test_what_torch_has_no_layer_for_is_refused(cell: nn.Module, named: str) -> None:
    with pytest.raises(ValueError, match=f"torch has no fused layer .*{named}"):
        to_fused(cell)  # type: ignore[arg-type]
