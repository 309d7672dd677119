"""Batch normalisation between time steps."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from lm.batch_norm import BatchNorm, BatchNormElmanCell, BatchNormLSTMCell
from lm.cells import GatedCell

pytestmark = pytest.mark.usefixtures("seed")

BATCH, STEPS, INPUT, HIDDEN = 5, 6, 3, 4


def normalised(x: Tensor, norm: nn.Module) -> Tensor:
    """(x − μ)/σ of each feature over all rows, times its gain, and its bias."""
    assert isinstance(norm, BatchNorm)
    rows = x.reshape(-1, x.shape[-1])
    variance = (rows - rows.mean(dim=0)).square().mean(dim=0)
    return (x - rows.mean(dim=0)) / (variance + norm.eps).sqrt() * norm.weight + norm.bias


def test_an_elman_cell_normalises_both_products_over_the_batch() -> None:
    cell, x, h = BatchNormElmanCell(INPUT, HIDDEN), torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN)
    out, _ = cell(x, (h[None],))
    inputs = normalised(x @ cell.from_input.weight.T, cell.norm_input)  # over all rows and steps
    for t in range(STEPS):
        h = (inputs[:, t] + normalised(h @ cell.from_hidden.weight.T, cell.norm_hidden)).tanh()
        torch.testing.assert_close(out[:, t], h, rtol=1e-4, atol=1e-5)


def test_an_lstm_is_equations_6_to_8() -> None:
    cell = BatchNormLSTMCell(INPUT, HIDDEN)
    x, h, c = torch.randn(BATCH, STEPS, INPUT), torch.randn(BATCH, HIDDEN), torch.randn(BATCH, HIDDEN)
    out, end = cell(x, (h[None], c[None]))
    inputs = normalised(x @ cell.from_input.weight.T, cell.norm_input)
    for t in range(STEPS):
        i, f, g, o = (inputs[:, t] + normalised(h @ cell.from_hidden.weight.T, cell.norm_hidden)).chunk(4, dim=-1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * normalised(c, cell.norm_memory).tanh()
        torch.testing.assert_close(out[:, t], h, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(end, (h[None], c[None]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", [BatchNormElmanCell, BatchNormLSTMCell])
def test_in_evaluation_a_row_does_not_depend_on_the_others(make: Callable[..., GatedCell]) -> None:
    cell, x = make(INPUT, HIDDEN), torch.randn(BATCH, STEPS, INPUT)
    assert not torch.allclose(cell(x)[0][:2], cell(x[:2])[0])
    cell.eval()
    torch.testing.assert_close(cell(x)[0][:1], cell(x[:1])[0])


def test_the_scale_is_that_of_the_normalised_products() -> None:
    norm = BatchNorm(HIDDEN, scale=0.3)
    assert norm(5 + 2 * torch.randn(1000, HIDDEN)).std(dim=0, correction=0).tolist() == pytest.approx([0.3] * HIDDEN, rel=1e-3)


def test_a_single_row_is_refused_in_training() -> None:
    with pytest.raises(ValueError, match="a batch of 1 row has no variance: give the data more lanes"):
        BatchNormElmanCell(INPUT, HIDDEN)(torch.randn(1, STEPS, INPUT))
