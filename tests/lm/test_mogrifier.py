"""The Mogrifier is its equations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lm.bidirectional import Bidirectional
from lm.cells import GRUCell, LSTMCell
from lm.initialisation import initialise
from lm.layers import LSTM
from lm.mogrifier import Mogrifier

BATCH, STEPS, INPUT, HIDDEN = 3, 6, 5, 4

pytestmark = pytest.mark.usefixtures("seed")


def matrix(gate: nn.Module) -> Tensor:
    """Q or R, multiplied out."""
    if isinstance(gate, nn.Sequential):
        right, left = (part.weight for part in gate if isinstance(part, nn.Linear))
        return left @ right
    assert isinstance(gate, nn.Linear)
    return gate.weight


@pytest.mark.parametrize("rank", [None, 2])
@pytest.mark.parametrize("rounds", [1, 2, 5])
def test_it_is_its_equations_around_an_lstm(rounds: int, rank: int | None) -> None:
    cell = Mogrifier(INPUT, HIDDEN, rounds=rounds, rank=rank)
    lstm = LSTMCell(INPUT, HIDDEN)
    lstm.load_state_dict(cell.cell.state_dict())
    gates = [matrix(gate) for gate in cell.maps]
    assert [tuple(gate.shape) for gate in gates] == [(INPUT, HIDDEN), (HIDDEN, INPUT), *[(INPUT, HIDDEN), (HIDDEN, INPUT)] * 2][
        :rounds
    ]
    x, h, c = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN), torch.randn(BATCH, HIDDEN)
    out, end = cell(x, (h[None], c[None]))
    for t in range(STEPS):
        now = x[:, t]
        for i in range(1, rounds + 1):
            if i % 2 == 1:
                now = 2 * torch.sigmoid(h @ gates[i - 1].T) * now
            else:
                h = 2 * torch.sigmoid(now @ gates[i - 1].T) * h
        _, (h, c) = (lambda y, after: (y, [part[0] for part in after]))(*lstm(now[:, None], (h[None], c[None])))
        torch.testing.assert_close(out[:, t], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end, (h[None], c[None]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("make", [LSTMCell, GRUCell, LSTM])
def test_without_rounds_it_is_the_cell(make: Any) -> None:
    cell = Mogrifier(INPUT, HIDDEN, cell=make, rounds=0)
    x = torch.randn(BATCH, STEPS, INPUT)
    torch.testing.assert_close(cell(x), cell.cell(x))


def test_matrices_of_zeros_gate_nothing() -> None:
    cell = Mogrifier(INPUT, HIDDEN, cell=GRUCell)
    for weight in cell.maps.parameters():
        weight.data.zero_()
    x = torch.randn(BATCH, STEPS, INPUT)
    torch.testing.assert_close(cell(x), cell.cell(x))


def test_an_initialisation_by_gates_takes_its_own_matrices_whole() -> None:
    cell = Mogrifier(60, 50)
    initialise(cell, "xavier_per_gate")
    for gate in cell.maps:
        bound = (6 / 110) ** 0.5
        assert 0.95 * bound < matrix(gate).abs().max() <= bound * (1 + 1e-6)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"rounds": -1}, ValueError, "Mogrifier: there are 0 rounds or more, got -1"),
        ({"rank": 4}, ValueError, "matrices of 4 x 5 have no low rank 4; give a positive one below both"),
        ({"rank": 0}, ValueError, "have no low rank 0"),
        ({"cell": Bidirectional}, TypeError, "give it a layer that has steps, such as lm.cells.LSTMCell, not Bidirectional"),
    ],
)
def test_what_there_is_not_is_refused(settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mogrifier(INPUT, HIDDEN, **settings)
