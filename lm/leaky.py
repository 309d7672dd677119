"""The leaky recurrence h_t = a_t ⊙ h_{t−1} + (1 − a_t) ⊙ c_t, all steps at once."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from lm.scan import carried, chunks, fitting, linear_recurrence


def leaky_recurrence(logit: Tensor, candidate: Tensor, initial: Tensor | None = None, gate_writes: bool = False) -> Tensor:
    """h_t = a_t ⊙ h_{t−1} + (1 − a_t) ⊙ c_t for every t, with a_t or 1 − a_t = σ(logit_t), computed in fp32 at least.

    It is `lm.scan.linear_recurrence` of b = (1 − a) ⊙ c, and on a GPU computed so. On a CPU, where reading and writing memory is
    what such a layer waits for, a and h are all that is written, and no tensor is gone through to be multiplied by 1 − a.

    Args:
        logit: of a or 1 − a, `(batch, time, hidden)`.
        candidate: c, of the same shape.
        initial: h before the first step, `(batch, hidden)`; None stands for zeros.
        gate_writes: whether the logit is of 1 − a, the share that is written, and not of a, the share that is kept. To negate it
            beforehand would say the same, for two more tensors of its size, there and back.

    Returns:
        h, `(batch, time, hidden)`; its gradient can be had once, and not be differentiated again.

    Raises:
        ValueError: if the shapes do not fit.
    """
    logit, candidate, initial = fitting(logit, candidate, initial)
    if logit.device.type != "cpu":
        decay = (-logit if gate_writes else logit).sigmoid()
        return linear_recurrence(decay, (1 - decay) * candidate, initial)
    result: Tensor = LeakyRecurrence.apply(logit, candidate, initial, gate_writes)  # type: ignore[no-untyped-call]
    return result


class LeakyRecurrence(Function):
    """Two passes over chunks of about √time steps, as in `lm.scan.scan`, forward and back.

    With e_t = a_t ⊙ g_t, the share of an error that is handed on, and g_t = ∂L/∂h_t + e_{t+1},
        ∂L/∂c_t = g_t ⊙ (1 − a_t) = g_t − e_t,
        ∂L/∂logit_t = g_t ⊙ (h_{t−1} − c_t) ⊙ a_t ⊙ (1 − a_t) = ∂L/∂c_t ⊙ (h_t − c_t), and ∂L/∂h_0 = e_1;
    the gradient of a logit of 1 − a_t has the other sign.
    """

    @staticmethod
    def forward(ctx: Any, logit: Tensor, candidate: Tensor, initial: Tensor, gate_writes: bool) -> Tensor:
        """h from logits, c and h_0, all of one dtype."""
        decay, hidden = torch.empty_like(candidate), torch.empty_like(candidate)
        ctx.gate_writes = gate_writes
        for slices in chunks(logit, candidate, decay, hidden):
            left, end = torch.ones_like(slices[0][3]), torch.zeros_like(slices[0][3])
            for x, c, a, _ in slices:
                torch.neg(x, out=a).sigmoid_() if gate_writes else torch.sigmoid(x, out=a)
                left *= a
                torch.lerp(c, end, a, out=end)
            state = carried(initial, left, end)
            for _, c, a, h in slices:
                state = torch.lerp(c, state, a, out=h)
            initial = state[:, -1]
        ctx.save_for_backward(candidate, decay, hidden)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all three tensors."""
        candidate, decay, hidden = ctx.saved_tensors
        of_logit, of_candidate = torch.empty_like(candidate), torch.empty_like(candidate)
        error = hidden.new_zeros(len(hidden), hidden.shape[2])
        for slices in chunks(gradient, decay, hidden, candidate, of_logit, of_candidate, reverse=True):
            left, end = torch.ones_like(slices[0][2]), torch.zeros_like(slices[0][2])
            for g, a, *_ in slices:
                left *= a
                end.add_(g).mul_(a)
            handed = carried(error, left, end, reverse=True)
            total = torch.empty_like(handed)
            for g, a, h, c, of_x, of_c in slices:
                torch.add(g, handed, out=total)
                torch.mul(total, a, out=handed)
                torch.sub(total, handed, out=of_c)
                difference = torch.sub(c, h, out=of_x) if ctx.gate_writes else torch.sub(h, c, out=of_x)
                difference.mul_(of_c)
            error = handed[:, 0]
        return of_logit, of_candidate, error, None
