"""The scans against a loop, and their gradients against differences."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from lm.leaky import leaky_recurrence
from lm.scan import linear_recurrence

BATCH, HIDDEN = 2, 3

pytestmark = pytest.mark.usefixtures("seed")


def linear_loop(decay: Tensor, value: Tensor, hidden: Tensor) -> Tensor:
    steps = []
    for a, b in zip(decay.unbind(1), value.unbind(1), strict=True):
        hidden = a * hidden + b
        steps.append(hidden)
    return torch.stack(steps, dim=1)


def leaky_loop(logit: Tensor, candidate: Tensor, hidden: Tensor) -> Tensor:
    decay = logit.sigmoid()
    return linear_loop(decay, (1 - decay) * candidate, hidden)


def writing(logit: Tensor, candidate: Tensor, initial: Tensor | None = None) -> Tensor:
    return leaky_recurrence(logit, candidate, initial, gate_writes=True)


class Form(NamedTuple):
    """A recurrence, the same as a loop, and the gates of some random numbers from 0 to 1."""

    ours: Callable[..., Tensor]
    loop: Callable[[Tensor, Tensor, Tensor], Tensor]
    gates: Callable[[Tensor], Tensor]

    def problem(self, steps: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
        """Gates, values, and a state before them."""
        gates = self.gates(torch.rand(BATCH, steps, HIDDEN, dtype=dtype))
        return gates, torch.randn(BATCH, steps, HIDDEN, dtype=dtype), torch.randn(BATCH, HIDDEN, dtype=dtype)


LINEAR = Form(linear_recurrence, linear_loop, torch.clone)
LEAKY = Form(leaky_recurrence, leaky_loop, torch.logit)
WRITING = Form(writing, lambda logit, *others: leaky_loop(-logit, *others), torch.logit)
every_form = pytest.mark.parametrize("form", [LINEAR, LEAKY, WRITING], ids=["linear", "leaky", "writing"])


@every_form
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16, 24, 25, 26, 1000])
def test_it_is_the_loop_with_its_gradients(form: Form, steps: int) -> None:
    ours = [part.requires_grad_() for part in form.problem(steps)]
    plain = [part.detach().clone().requires_grad_() for part in ours]
    weights = torch.randn(BATCH, steps, HIDDEN, dtype=torch.float64)
    hidden, expected = form.ours(*ours), form.loop(*plain)
    torch.testing.assert_close(hidden, expected, rtol=1e-12, atol=1e-12)
    gradients, wanted = (torch.autograd.grad((out * weights).sum(), to) for out, to in ((hidden, ours), (expected, plain)))
    torch.testing.assert_close(gradients, wanted, rtol=1e-12, atol=1e-12)


@every_form
@pytest.mark.parametrize("steps", [1, 2, 5, 9, 11])
def test_its_gradient_is_that_of_differences(form: Form, steps: int) -> None:
    assert gradcheck(form.ours, [part.requires_grad_() for part in form.problem(steps)])
    assert gradcheck(form.ours, [part.requires_grad_() for part in form.problem(steps)[:2]])  # no state before: zeros


@every_form
def test_no_steps_are_no_states(form: Form) -> None:
    gates = torch.zeros(BATCH, 0, HIDDEN)
    assert form.ours(gates, gates).shape == gates.shape


def test_decays_may_be_negative_or_above_1() -> None:
    decay, value, initial = LINEAR.problem(50)
    decay = 4 * decay - 2
    torch.testing.assert_close(
        linear_recurrence(decay, value, initial), linear_loop(decay, value, initial), rtol=1e-10, atol=1e-10
    )


def test_a_past_too_faint_for_a_number_is_forgotten_and_one_that_is_kept_is_kept() -> None:
    """2,000 decays of 0.1 multiply to 10⁻²⁰⁰⁰, which a scan that divides by them or takes their logarithm's exponential loses."""
    decay = torch.full((1, 2000, 2), 0.1)
    decay[..., 1] = 1
    hidden = linear_recurrence(decay, torch.zeros(1, 2000, 2), torch.tensor([[1.0, 3.0]]))
    assert hidden.isfinite().all()
    assert hidden[0, -1].tolist() == [0, 3]
    summed = linear_recurrence(decay, torch.ones(1, 2000, 2))[0, -1]
    torch.testing.assert_close(summed, torch.tensor([1 / 0.9, 2000.0]))


def test_closed_and_open_gates_keep_and_replace() -> None:
    logit = torch.full((1, 500, 2), 200.0)
    logit[..., 1] = -200
    candidate = torch.randn(1, 500, 2)
    hidden = leaky_recurrence(logit, candidate, torch.tensor([[3.0, 3.0]]))
    assert hidden[..., 0].tolist() == [[3.0] * 500]
    assert hidden[..., 1].equal(candidate[..., 1])


@every_form
def test_views_and_broadcast_gradients_are_read_where_they_lie(form: Form) -> None:
    stacked = torch.rand(BATCH, 30, 2 * HIDDEN, dtype=torch.float64, requires_grad=True)
    gates, values = stacked.chunk(2, dim=-1)
    zeros = torch.zeros(BATCH, HIDDEN, dtype=torch.float64)
    torch.testing.assert_close(
        torch.autograd.grad(form.ours(gates, values).sum(), stacked),
        torch.autograd.grad(form.loop(gates, values, zeros).sum(), stacked),
    )


@every_form
def test_half_precision_is_widened_and_its_gradients_are_not(form: Form) -> None:
    gates, values, initial = (part.bfloat16() for part in form.problem(300))
    gates.requires_grad_()
    hidden = form.ours(gates, values, initial)
    assert hidden.dtype == torch.float32
    torch.testing.assert_close(hidden, form.loop(gates.float(), values.float(), initial.float()), rtol=1e-5, atol=1e-5)
    (gradient,) = torch.autograd.grad(hidden.sum(), gates)
    assert gradient.dtype == torch.bfloat16


@every_form
def test_its_gradient_has_no_gradient(form: Form) -> None:
    gates, values, _ = (part.requires_grad_() for part in form.problem(4))
    (gradient,) = torch.autograd.grad(form.ours(gates, values).square().sum(), gates, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()  # type: ignore[no-untyped-call]


@every_form
@pytest.mark.parametrize("shapes", [((2, 5, 3), (2, 4, 3), (2, 3)), ((2, 5, 3), (2, 5, 3), (1, 3))])
def test_shapes_that_do_not_fit_are_refused(form: Form, shapes: tuple[tuple[int, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"recurrence: gate \(2, 5, 3\), value .* do not fit"):
        form.ours(*(torch.zeros(shape) for shape in shapes))
