"""The scan against a loop, and its gradient against differences."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lm.scan import linear_recurrence

BATCH, HIDDEN = 2, 3

pytestmark = pytest.mark.usefixtures("seed")


def loop(decay: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    steps = []
    for a, b in zip(decay.unbind(1), value.unbind(1), strict=True):
        hidden = a * hidden + b
        steps.append(hidden)
    return torch.stack(steps, dim=1)


def problem(steps: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Decays in (0, 1), values, and a state before them."""
    decay = torch.rand(BATCH, steps, HIDDEN, dtype=dtype)
    return decay, torch.randn(BATCH, steps, HIDDEN, dtype=dtype), torch.randn(BATCH, HIDDEN, dtype=dtype)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16, 24, 25, 26, 1000])
def test_it_is_the_loop_with_its_gradients(steps: int) -> None:
    ours, plain = ([part.clone().requires_grad_() for part in parts] for parts in [problem(steps)] * 2)
    weights = torch.randn(BATCH, steps, HIDDEN, dtype=torch.float64)
    hidden, expected = linear_recurrence(*ours), loop(*plain)
    torch.testing.assert_close(hidden, expected, rtol=1e-12, atol=1e-12)
    gradients, wanted = (torch.autograd.grad((out * weights).sum(), to) for out, to in ((hidden, ours), (expected, plain)))
    torch.testing.assert_close(gradients, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 11])
def test_its_gradient_is_that_of_differences(steps: int) -> None:
    assert gradcheck(linear_recurrence, [part.requires_grad_() for part in problem(steps)])
    assert gradcheck(linear_recurrence, [part.requires_grad_() for part in problem(steps)[:2]])  # no state before: zeros


def test_decays_may_be_negative_or_above_1() -> None:
    decay, value, initial = problem(50)
    decay = 4 * decay - 2
    torch.testing.assert_close(linear_recurrence(decay, value, initial), loop(decay, value, initial), rtol=1e-10, atol=1e-10)


def test_a_past_too_faint_for_a_number_is_forgotten_and_one_that_is_kept_is_kept() -> None:
    """2,000 decays of 0.1 multiply to 10⁻²⁰⁰⁰, which a scan that divides by them or takes their logarithm's exponential loses."""
    decay = torch.full((1, 2000, 2), 0.1)
    decay[..., 1] = 1
    hidden = linear_recurrence(decay, torch.zeros(1, 2000, 2), torch.tensor([[1.0, 3.0]]))
    assert hidden.isfinite().all()
    assert hidden[0, -1].tolist() == [0, 3]
    summed = linear_recurrence(decay, torch.ones(1, 2000, 2))[0, -1]
    torch.testing.assert_close(summed, torch.tensor([1 / 0.9, 2000.0]))


def test_views_and_broadcast_gradients_are_read_where_they_lie() -> None:
    stacked = torch.rand(BATCH, 30, 2 * HIDDEN, dtype=torch.float64, requires_grad=True)
    decay, value = stacked.chunk(2, dim=-1)
    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(linear_recurrence(decay, value).sum(), stacked),
        torch.autograd.grad(loop(decay, value, zeros).sum(), stacked),
    )


def test_half_precision_is_widened_and_its_gradients_are_not() -> None:
    decay, value, initial = (part.bfloat16() for part in problem(300))
    decay.requires_grad_()
    hidden = linear_recurrence(decay, value, initial)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, loop(decay.float(), value.float(), initial.float()), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(hidden.sum(), decay)
    assert gradient.dtype == torch.bfloat16


def test_its_gradient_has_no_gradient() -> None:
    decay, value, _ = (part.requires_grad_() for part in problem(4))
    (gradient,) = torch.autograd.grad(linear_recurrence(decay, value).square().sum(), decay, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("shapes", [((2, 5, 3), (2, 4, 3), (2, 3)), ((2, 5, 3), (2, 5, 3), (1, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"recurrence: gate \(2, 5, 3\), value .* do not fit"):
        linear_recurrence(*(torch.zeros(shape) for shape in shapes))
