"""All steps of a gated recurrent unit, and of several of one size side by side, in one function with a gradient of its own.

torch has a kernel for them on a GPU. On a CPU it takes each step apart: autograd goes back through a dozen operations, multiplies
the weight's gradient out step by step, and in mixed precision casts every weight in every step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

sigmoid_backward, tanh_backward = torch.ops.aten.sigmoid_backward, torch.ops.aten.tanh_backward


def gru_steps(x: Tensor, weights: Sequence[Sequence[Tensor]], before: Tensor) -> Tensor:
    """h_t of every step of some GRUs, by the equations of lm.cells.GRUCell.

    Args:
        x: their inputs, `(units, batch, time, input)`.
        weights: of each unit `(3·hidden, input)`, `(3·hidden, hidden)` and two biases `(3·hidden,)`: those of x and of h, with
            the rows of the reset gate, the update gate and the candidate. They are cast to the type of x, once.
        before: h before the first step, `(units, batch, hidden)`.

    Returns:
        `(units, batch, time, hidden)`; its gradient can be had once, and not be differentiated again.
    """
    parameters = (torch.stack([part.to(x.dtype) for part in parts]) for parts in zip(*weights, strict=True))
    hidden: Tensor = GRUSteps.apply(x.transpose(1, 2), before.to(x.dtype), *parameters)  # type: ignore[no-untyped-call]
    return hidden.transpose(1, 2)


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """`torch.stack`, which copies one tensor too."""
    return torch.stack([*parts]) if len(parts) > 1 else parts[0][None]


class GRUSteps(Function):
    """The steps of all units, and back.

    With r, u, h̃ and the candidate's share of the recurrent product q = W_hh h_{t−1} + b'_h, an error e_t of h_t is one of
        the candidate's projected input: e_t ⊙ (1 − u) ⊙ (1 − h̃²), and of q that ⊙ r,
        the reset gate's: the candidate's ⊙ q ⊙ r ⊙ (1 − r),
        the update gate's: e_t ⊙ (h_{t−1} − h̃) ⊙ u ⊙ (1 − u).
    All factors of e_t are made for all steps at once, so that a step back is a product of them, one with W and a sum. Inputs are
    projected here too: autograd's gradient of a matrix in a batched product lies transposed, and would be copied.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, before: Tensor, input_weight: Tensor, weight: Tensor, input_bias: Tensor, bias: Tensor
    ) -> Tensor:
        """Inputs `(units, time, batch, input)`, h before them, stacked weights -> h `(units, time, batch, hidden)`."""
        units, time, batch, _ = x.shape
        size = weight.shape[-1]
        x = x.flatten(1, 2)
        projected = torch.baddbmm(input_bias[:, None], x, input_weight.mT).view(units, time, batch, -1)
        hidden = projected.new_empty(units, time + 1, batch, size)
        hidden[:, 0] = before
        candidates = projected.new_empty(units, time, batch, size)
        recurrent = torch.empty_like(projected)  # whose first two parts become the gates
        sizes = [2 * size, size]
        steps = zip(
            *(part.unbind(1) for part in torch.split(projected, sizes, dim=-1)),
            *(part.unbind(1) for part in (recurrent, *torch.split(recurrent, sizes, dim=-1))),
            *(part.unbind(1) for part in (candidates, hidden[:, :-1], hidden[:, 1:])),
            strict=True,
        )
        for gates_x, candidate_x, product, gates, candidate_h, candidate, old, new in steps:
            torch.baddbmm(bias[:, None], old, weight.mT, out=product)
            reset, update = gates.add_(gates_x).sigmoid_().chunk(2, dim=-1)
            torch.addcmul(candidate_x, reset, candidate_h, out=candidate).tanh_()
            torch.lerp(candidate, old, update, out=new)
        ctx.save_for_backward(x, hidden, recurrent, candidates, input_weight, weight)
        return hidden[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all six."""
        x, hidden, recurrent, candidate, input_weight, weight = ctx.saved_tensors
        old = hidden[:, :-1]
        reset, update, candidate_h = recurrent.chunk(3, dim=-1)
        of_candidate = tanh_backward(1 - update, candidate)
        errors = torch.empty_like(recurrent)
        factors = errors.chunk(3, dim=-1)
        torch.mul(of_candidate, reset, out=factors[2])
        sigmoid_backward.grad_input(of_candidate * candidate_h, reset, grad_input=factors[0])
        sigmoid_backward.grad_input(old - candidate, update, grad_input=factors[1])

        total = torch.empty_like(gradient)
        past = torch.zeros_like(gradient[:, 0])
        by_gate = errors.view(*gradient.shape[:-1], 3, -1)
        steps = zip(*(part.unbind(1) for part in (gradient, total, update, by_gate, errors)), strict=True)
        for from_outside, error, kept, parts, whole in reversed(list(steps)):
            torch.add(from_outside, past, out=error)
            parts.mul_(error[:, :, None])
            past = torch.baddbmm(error * kept, whole, weight)

        errors = errors.flatten(1, 2)
        of_weight, of_bias = errors.mT @ old.flatten(1, 2), errors.sum(dim=1)
        torch.mul(total, of_candidate, out=factors[2])  # errors of the projected inputs differ from those of q in the candidate's
        of_x = (errors @ input_weight).view(*gradient.shape[:-1], -1) if ctx.needs_input_grad[0] else None
        return of_x, past, errors.mT @ x, of_weight, errors.sum(dim=1), of_bias
