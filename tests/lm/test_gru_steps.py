from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from lm.gru_steps import gru_steps
from lm.layers import GRU, FusedLayer, gru_side_by_side

UNITS, BATCH, STEPS, INPUT, HIDDEN = 2, 3, 5, 4, 6


def made(units: int = UNITS, dtype: torch.dtype = torch.float64, hidden: int = HIDDEN) -> list[nn.GRU]:
    torch.manual_seed(0)
    return [nn.GRU(INPUT, hidden, batch_first=True).to(dtype) for _ in range(units)]


def inputs(
    units: int = UNITS, steps: int = STEPS, dtype: torch.dtype = torch.float64, hidden: int = HIDDEN
) -> tuple[Tensor, Tensor]:
    """x and h before it, both wanting a gradient."""
    x = torch.randn(units, BATCH, steps, INPUT, dtype=dtype, requires_grad=True)
    return x, torch.randn(units, BATCH, hidden, dtype=dtype, requires_grad=True)


def weights(units: Sequence[nn.GRU]) -> list[Tensor]:
    return [weight for unit in units for weight in unit.parameters()]


def ours(units: Sequence[nn.GRU], x: Tensor, before: Tensor) -> Tensor:
    return gru_steps(x, [unit.all_weights[0] for unit in units], before)


def torchs(units: Sequence[nn.GRU], x: Tensor, before: Tensor) -> Tensor:
    return torch.stack([unit(one, old[None])[0] for unit, one, old in zip(units, x, before, strict=True)])


Said = Callable[[Sequence[nn.GRU], Tensor, Tensor], Tensor]


@pytest.mark.parametrize("units", [1, 2, 3])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_values_and_gradients_are_those_of_torchs_gru(units: int, steps: int) -> None:
    layers, (x, before) = made(units), inputs(units, steps)
    wanted = [x, before, *weights(layers)]

    def found(said: Said) -> list[Tensor]:
        y = said(layers, x, before)
        of_each = torch.arange(y.numel(), dtype=y.dtype).sin().view(y.shape)
        return [y, *torch.autograd.grad((y * of_each).sum(), wanted)]

    for mine, theirs in zip(found(ours), found(torchs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_a_unit_among_others_says_what_it_says_alone() -> None:
    layers, (x, before) = made(), inputs()
    together = ours(layers, x, before)
    for index in range(UNITS):
        alone = ours(layers[index : index + 1], x[index : index + 1], before[index : index + 1])
        torch.testing.assert_close(together[index], alone[0], rtol=1e-12, atol=1e-13)


def test_each_gradient_is_of_what_was_asked_for() -> None:
    """Of one graph: that of the first steps alone, of the state before, then of a weight, twice."""
    layers, (x, before) = made(), inputs()
    weight = layers[1].all_weights[0][1]

    def several(said: Said) -> list[Tensor]:
        y = said(layers, x, before)
        asked = [(y[:, :, :2].square().sum(), x), (y[:, :, -1].sum(), before), (y.sum(), weight), (y.sum(), weight)]
        return [torch.autograd.grad(of, by, retain_graph=True)[0] for of, by in asked]

    for mine, theirs in zip(several(ours), several(torchs), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-12)


def test_a_second_derivative_is_refused() -> None:
    layers, (x, before) = made(), inputs()
    (first,) = torch.autograd.grad(ours(layers, x, before).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()  # type: ignore[no-untyped-call]


def test_in_half_precision_the_weights_gradient_is_as_exact_as_torchs() -> None:
    """100 steps: torch casts a gradient a step and adds up in fp32; one product sums in fp32, and is rounded once."""
    hidden = 32
    layers, (x, before) = made(dtype=torch.float32, hidden=hidden), inputs(steps=100, dtype=torch.float32, hidden=hidden)

    def gradient(said: Said, half: bool) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
            y = said(layers, x.bfloat16() if half else x, before.bfloat16() if half else before)
        assert y.dtype == (torch.bfloat16 if half else torch.float32)
        return torch.cat([part.flatten() for part in torch.autograd.grad((y.float() + 1).square().sum(), weights(layers))])

    exact = gradient(torchs, half=False)
    mine, theirs = ((gradient(said, half=True) - exact).norm() / exact.norm() for said in (ours, torchs))
    assert mine < 1.25 * theirs
    assert cosine_similarity(gradient(ours, half=True), exact, dim=0) > 0.999


@pytest.mark.parametrize("lengths", [None, torch.tensor([5, 1, 3])], ids=["full", "lengths"])
def test_layers_side_by_side_are_torchs_kernel_one_by_one(lengths: Tensor | None) -> None:
    layers = [GRU(INPUT, HIDDEN).double() for _ in range(UNITS)]
    x, before = inputs()
    said, after = gru_side_by_side(layers, x.unbind(), before, lengths)
    for index, layer in enumerate(layers):
        theirs, (last,) = FusedLayer.forward(layer, x[index], (before[index][None],), lengths)
        torch.testing.assert_close(said[index], theirs, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(after[index], last[0], rtol=1e-12, atol=1e-13)
