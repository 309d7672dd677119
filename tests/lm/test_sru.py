"""The SRU is its equations, with v and without."""

import pytest
import torch
from torch import Tensor

from lm.sru import SRU

BATCH, STEPS, INPUT, HIDDEN = 3, 20, 5, 4

pytestmark = pytest.mark.usefixtures("seed")


def shaken(cell: SRU) -> SRU:
    """With biases and v of some size."""
    for parameter in cell.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return cell


def equations(cell: SRU, x: Tensor, c: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Lei et al. (2018), eq. 1 to 4."""
    w_f, w_r, w, *w_x = cell.from_input.weight.chunk(cell.gates)
    b_f, b_r = cell.bias.chunk(2)
    v_f, v_r = (torch.zeros(2 * HIDDEN) if cell.peephole is None else cell.peephole).chunk(2)
    said = []
    for now in x.unbind(1):
        f = torch.sigmoid(now @ w_f.T + v_f * c + b_f)
        r = torch.sigmoid(now @ w_r.T + v_r * c + b_r)
        c = f * c + (1 - f) * (now @ w.T)
        said.append(r * c + (1 - r) * alpha * (now @ w_x[0].T if w_x else now))
    return torch.stack(said, dim=1), c


@pytest.mark.parametrize("peephole", [True, False])
@pytest.mark.parametrize("input_size", [INPUT, HIDDEN])
@pytest.mark.parametrize(("rescale", "alpha"), [(True, 3**0.5), (False, 1.0)])
def test_it_is_its_equations(peephole: bool, input_size: int, rescale: bool, alpha: float) -> None:
    cell = shaken(SRU(input_size, HIDDEN, peephole, rescale))
    assert (cell.peephole is not None) == peephole
    x, (h, c) = torch.randn(BATCH, STEPS, input_size), torch.randn(2, 1, BATCH, HIDDEN)
    out, (last, memory) = cell(x, (h, c))
    expected, end = equations(cell, x, c[0], alpha)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(last[0], expected[:, -1], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(memory[0], end, rtol=1e-5, atol=1e-5)


def test_a_peephole_of_zeros_is_none() -> None:
    cell, scanned = SRU(INPUT, HIDDEN), SRU(INPUT, HIDDEN, peephole=False)
    scanned.load_state_dict({name: value for name, value in shaken(cell).state_dict().items() if name != "peephole"})
    x = torch.randn(BATCH, STEPS, INPUT)
    assert not torch.allclose(cell(x)[0], scanned(x)[0], atol=1e-3)
    assert cell.peephole is not None
    cell.peephole.data.zero_()
    torch.testing.assert_close(cell(x), scanned(x), rtol=1e-5, atol=1e-5)


def test_at_the_start_a_stack_keeps_the_variance_of_its_input() -> None:
    """What α is for; without it four layers lose most of it."""
    torch.manual_seed(0)
    x = torch.randn(8, 100, 64)

    def deviation(rescale: bool) -> float:
        out = x
        for _ in range(4):
            out = SRU(64, 64, peephole=False, rescale=rescale)(out)[0]
        return out.std().item()

    assert 0.7 < deviation(rescale=True) < 1.4
    assert deviation(rescale=False) < 0.4
