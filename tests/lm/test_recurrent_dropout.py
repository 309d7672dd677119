"""Cells with dropout inside: their equations with the masks of a seed, drawn again by hand."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from lm.cells import GRUCell, LSTMCell
from lm.dropout import dropout_mask
from lm.recurrent_dropout import RecurrentDropoutGRU, RecurrentDropoutLSTM

BATCH, STEPS, INPUT, HIDDEN = 3, 5, 4, 6
CELLS = pytest.mark.parametrize("kind", [RecurrentDropoutLSTM, RecurrentDropoutGRU])

pytestmark = pytest.mark.usefixtures("seed")


def lstm(cell: LSTMCell, x: Tensor, hidden_mask: Tensor, candidate_masks: Sequence[Tensor]) -> Tensor:
    """All hidden states, by the equations."""
    h, c, said = torch.zeros(BATCH, HIDDEN), torch.zeros(BATCH, HIDDEN), []
    for x_t, mask in zip(x.unbind(1), candidate_masks, strict=True):
        z = x_t @ cell.from_input.weight.T + cell.from_input.bias + (h * hidden_mask) @ cell.from_hidden.weight.T
        i, f, g, o = (z[:, part * HIDDEN : (part + 1) * HIDDEN] for part in range(4))
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g) * mask
        h = torch.sigmoid(o) * torch.tanh(c)
        said.append(h)
    return torch.stack(said, 1)


def gru(cell: GRUCell, x: Tensor, hidden_mask: Tensor, candidate_masks: Sequence[Tensor]) -> Tensor:
    """All hidden states, by the equations."""
    h, said = torch.zeros(BATCH, HIDDEN), []
    for x_t, mask in zip(x.unbind(1), candidate_masks, strict=True):
        a = x_t @ cell.from_input.weight.T + cell.from_input.bias
        b = (h * hidden_mask) @ cell.from_hidden.weight.T + cell.from_hidden.bias
        r, u = torch.sigmoid(a[:, :HIDDEN] + b[:, :HIDDEN]), torch.sigmoid((a + b)[:, HIDDEN : 2 * HIDDEN])
        g = torch.tanh(a[:, 2 * HIDDEN :] + r * b[:, 2 * HIDDEN :])
        h = u * h + (1 - u) * g * mask
        said.append(h)
    return torch.stack(said, 1)


@CELLS
@pytest.mark.parametrize("locked", [True, False])
def test_the_state_that_gates_read_and_the_candidate_are_dropped_and_nothing_else(kind: type, locked: bool) -> None:
    cell, x = kind(INPUT, HIDDEN, hidden=0.4, candidate=0.3, locked=locked), torch.randn(BATCH, STEPS, INPUT)
    torch.manual_seed(2)
    said, _ = cell(x)
    torch.manual_seed(2)
    like = torch.zeros(BATCH, HIDDEN)
    hidden_mask = dropout_mask(like, 0.4)
    candidate_masks = [dropout_mask(like, 0.3)] * STEPS if locked else [dropout_mask(like, 0.3) for _ in range(STEPS)]
    by_hand = lstm if kind is RecurrentDropoutLSTM else gru
    torch.testing.assert_close(said, by_hand(cell, x, hidden_mask, candidate_masks))


@CELLS
def test_in_evaluation_and_without_a_rate_it_is_the_plain_cell(kind: type) -> None:
    x, plain = torch.randn(BATCH, STEPS, INPUT), (LSTMCell if kind is RecurrentDropoutLSTM else GRUCell)(INPUT, HIDDEN)
    for cell in (kind(INPUT, HIDDEN, hidden=0.4, candidate=0.3).eval(), kind(INPUT, HIDDEN, candidate=0.0)):
        cell.load_state_dict(plain.state_dict())
        torch.testing.assert_close(cell(x), plain(x))


@CELLS
def test_rates_are_probabilities(kind: type) -> None:
    for rates in ({"hidden": 1.0}, {"candidate": -0.1}):
        with pytest.raises(ValueError, match="the rate is a probability below 1"):
            kind(INPUT, HIDDEN, **rates)
