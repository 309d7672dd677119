"""The leaky recurrence against the linear one, whose b is (1 − a) ⊙ c, and its gradient against differences."""

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lm.leaky import leaky_recurrence
from lm.scan import linear_recurrence

BATCH, HIDDEN = 2, 3

pytestmark = pytest.mark.usefixtures("seed")


def problem(steps: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, candidates, and a state before them."""
    logit, candidate = torch.randn(2, BATCH, steps, HIDDEN, dtype=dtype)
    return 3 * logit, candidate, torch.randn(BATCH, HIDDEN, dtype=dtype)


def by_hand(logit: Tensor, candidate: Tensor, initial: Tensor) -> Tensor:
    decay = logit.sigmoid()
    return linear_recurrence(decay, (1 - decay) * candidate, initial)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16, 24, 25, 26, 1000])
def test_it_is_the_linear_recurrence_with_its_gradients(steps: int) -> None:
    ours, plain = ([part.clone().requires_grad_() for part in parts] for parts in [problem(steps)] * 2)
    weights = torch.randn(BATCH, steps, HIDDEN, dtype=torch.float64)
    hidden, expected = leaky_recurrence(*ours), by_hand(*plain)
    torch.testing.assert_close(hidden, expected, rtol=1e-12, atol=1e-12)
    gradients, wanted = (torch.autograd.grad((out * weights).sum(), to) for out, to in ((hidden, ours), (expected, plain)))
    torch.testing.assert_close(gradients, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 11])
def test_its_gradient_is_that_of_differences(steps: int) -> None:
    assert gradcheck(leaky_recurrence, [part.requires_grad_() for part in problem(steps)])
    assert gradcheck(leaky_recurrence, [part.requires_grad_() for part in problem(steps)[:2]])  # no state before: zeros


def test_no_steps_are_no_states() -> None:
    logit = torch.zeros(BATCH, 0, HIDDEN, requires_grad=True)
    hidden = leaky_recurrence(logit, logit)
    assert hidden.shape == (BATCH, 0, HIDDEN)
    torch.autograd.backward(hidden.sum())


def test_closed_and_open_gates_keep_and_replace() -> None:
    logit = torch.full((1, 500, 2), 200.0)
    logit[..., 1] = -200
    candidate = torch.randn(1, 500, 2)
    hidden = leaky_recurrence(logit, candidate, torch.tensor([[3.0, 3.0]]))
    assert hidden[..., 0].tolist() == [[3.0] * 500]
    assert hidden[..., 1].equal(candidate[..., 1])


def test_views_and_broadcast_gradients_are_read_where_they_lie() -> None:
    stacked = torch.randn(BATCH, 30, 2 * HIDDEN, dtype=torch.float64, requires_grad=True)
    logit, candidate = stacked.chunk(2, dim=-1)
    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(leaky_recurrence(logit, candidate).sum(), stacked),
        torch.autograd.grad(by_hand(logit, candidate, zeros).sum(), stacked),
    )


def test_half_precision_is_widened_and_its_gradients_are_not() -> None:
    logit, candidate, initial = (part.bfloat16() for part in problem(300))
    logit.requires_grad_()
    hidden = leaky_recurrence(logit, candidate, initial)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, by_hand(logit.float(), candidate.float(), initial.float()), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(hidden.sum(), logit)
    assert gradient.dtype == torch.bfloat16


def test_its_gradient_has_no_gradient() -> None:
    logit, candidate, _ = (part.requires_grad_() for part in problem(4))
    (gradient,) = torch.autograd.grad(leaky_recurrence(logit, candidate).square().sum(), logit, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("shapes", [((2, 5, 3), (2, 4, 3), (2, 3)), ((2, 5, 3), (2, 5, 3), (1, 3))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"recurrence: gate \(2, 5, 3\), value .* do not fit"):
        leaky_recurrence(*(torch.zeros(shape) for shape in shapes))
