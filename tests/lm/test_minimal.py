"""The minimal GRU and LSTM are their equations."""

import pytest
import torch

from lm.layers import Cell
from lm.minimal import MinGRU, MinLSTM

BATCH, STEPS, INPUT, HIDDEN = 3, 20, 5, 4

pytestmark = pytest.mark.usefixtures("seed")


def test_a_minimal_gru_is_its_equations() -> None:
    cell = MinGRU(INPUT, HIDDEN)
    (w_z, w_h), (b_z, b_h) = cell.from_input.weight.chunk(2), cell.from_input.bias.chunk(2)
    x, h = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN)
    out, (end,) = cell(x, (h[None],))
    for t in range(STEPS):
        z = torch.sigmoid(x[:, t] @ w_z.T + b_z)
        h = (1 - z) * h + z * (x[:, t] @ w_h.T + b_h)
        torch.testing.assert_close(out[:, t], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end[0], h, rtol=1e-5, atol=1e-5)


def test_a_minimal_lstm_is_its_equations() -> None:
    cell = MinLSTM(INPUT, HIDDEN)
    (w_f, w_i, w_h), (b_f, b_i, b_h) = cell.from_input.weight.chunk(3), cell.from_input.bias.chunk(3)
    x, h = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN)
    out, (end,) = cell(x, (h[None],))
    for t in range(STEPS):
        f, i = torch.sigmoid(x[:, t] @ w_f.T + b_f), torch.sigmoid(x[:, t] @ w_i.T + b_i)
        h = f / (f + i) * h + i / (f + i) * (x[:, t] @ w_h.T + b_h)
        torch.testing.assert_close(out[:, t], h, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(end[0], h, rtol=1e-5, atol=1e-5)


def test_two_gates_that_are_shut_share_alike() -> None:
    """σ(−500) is 0 in fp32, and the quotient as it is written 0/0."""
    cell = MinLSTM(1, 1)
    cell.from_input.weight.data.zero_()
    cell.from_input.bias.data.copy_(torch.tensor([-500.0, -500.0, 3.0]))
    x = torch.zeros(1, 2, 1, requires_grad=True)
    out, _ = cell(x)
    assert out.flatten().tolist() == [1.5, 2.25]
    out.sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in cell.parameters())


@pytest.mark.parametrize("make", [MinGRU, MinLSTM])
def test_gates_are_as_fine_under_autocast_as_a_long_memory_needs(make: type[MinGRU | MinLSTM]) -> None:
    """A forget gate of 0.9995 is 1 in bf16, which would forget nothing in 2,000 steps."""
    cell = make(1, 1)
    cell.from_input.weight.data.zero_()
    biases = {MinGRU: [-7.625, 0.0], MinLSTM: [7.625, -7.625, 0.0]}[make]  # exact in bf16, as their products are
    cell.from_input.bias.data.copy_(torch.tensor(biases))
    x, state = torch.zeros(1, 2000, 1), (torch.ones(1, 1, 1),)
    exact = cell(x, state)[0][0, -1]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(cell(x, state)[1][0][0, 0], exact, rtol=0.02, atol=0)
        looped = Cell.forward(cell, x, state)[1][0][0, 0]
    torch.testing.assert_close(looped, exact, rtol=0.02, atol=0)
    assert exact < 0.5
