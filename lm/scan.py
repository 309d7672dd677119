"""The linear recurrence h_t = a_t ⊙ h_{t−1} + b_t, all steps at once."""

from collections.abc import Iterator
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from lm.precision import wide

Slices = list[tuple[Tensor, ...]]
"""Of each step in all chunks, the slices `(batch, chunks, hidden)` of some tensors."""


def linear_recurrence(decay: Tensor, value: Tensor, initial: Tensor | None = None) -> Tensor:
    """h_t = a_t ⊙ h_{t−1} + b_t for every t, computed in fp32 at least.

    Nothing is divided and no logarithm is taken, so that the sums are those of the loop, rounded in another place: a product of
    decays in [0, 1] that is too small to be a number is a past that has been forgotten. (The log-space scan of Feng et al. 2024,
    appendix B, is for sums that are divided by such products, and needs values above 0.)

    Args:
        decay: a, `(batch, time, hidden)`.
        value: b, of the same shape.
        initial: h before the first step, `(batch, hidden)`; None stands for zeros.

    Returns:
        h, `(batch, time, hidden)`; its gradient can be had once, and not be differentiated again.

    Raises:
        ValueError: if the shapes do not fit.
    """
    result: Tensor = LinearRecurrence.apply(*fitting(decay, value, initial))  # type: ignore[no-untyped-call]
    return result


def fitting(gate: Tensor, value: Tensor, initial: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """All three in one type, at least fp32; zeros for no initial state.

    Raises:
        ValueError: if the shapes do not fit.
    """
    batch, _, hidden = gate.shape
    initial = gate.new_zeros(batch, hidden) if initial is None else initial
    if gate.shape != value.shape or initial.shape != (batch, hidden):
        shapes = f"gate {tuple(gate.shape)}, value {tuple(value.shape)} and initial state {tuple(initial.shape)}"
        raise ValueError(f"recurrence: {shapes} do not fit: give it (batch, time, hidden) twice and (batch, hidden)")
    dtype = wide(torch.promote_types(gate.dtype, value.dtype))
    return gate.to(dtype), value.to(dtype), initial.to(dtype)


class LinearRecurrence(Function):
    """The scan, and the scan in the other direction that is its gradient: g_t = ∂L/∂h_t + a_{t+1} ⊙ g_{t+1}."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, value: Tensor, initial: Tensor) -> Tensor:
        """h from a, b and h_0, all of one dtype."""
        hidden = torch.empty_like(value)
        scan(decay, value, initial, hidden)
        ctx.save_for_backward(decay, hidden, initial)
        return hidden

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """∂L/∂a_t = g_t ⊙ h_{t−1}, ∂L/∂b_t = g_t, ∂L/∂h_0 = a_1 ⊙ g_1."""
        decay, hidden, initial = ctx.saved_tensors
        total = torch.empty_like(hidden)
        total[:, -1] = gradient[:, -1]
        scan(decay[:, 1:], gradient[:, :-1], gradient[:, -1], total[:, :-1], reverse=True)
        of_decay = torch.empty_like(decay)
        torch.mul(total[:, 0], initial, out=of_decay[:, 0])
        torch.mul(total[:, 1:], hidden[:, :-1], out=of_decay[:, 1:])
        return of_decay, total, decay[:, 0] * total[:, 0]


def scan(decay: Tensor, value: Tensor, initial: Tensor, out: Tensor, reverse: bool = False) -> None:
    """Write h into `out`, from the last step to the first if `reverse`.

    Time is cut into about √time chunks. A first pass takes all chunks through their steps together, each from zeros, and keeps
    only where they end; then the state is carried from chunk to chunk; a second pass takes all chunks through their steps from
    the states they really begin with. That reads a and b twice and writes h once, in 3·√time small operations, where a scan by
    doubling moves the whole sequence log₂(time) times.
    """
    for slices in chunks(decay, value, out, reverse=reverse):
        left, end = torch.ones_like(slices[0][2]), torch.zeros_like(slices[0][2])
        for a, b, _ in slices:
            left *= a
            torch.addcmul(b, a, end, out=end)
        state = carried(initial, left, end, reverse)
        for a, b, h in slices:
            state = torch.addcmul(b, a, state, out=h)
        initial = state[:, 0 if reverse else -1]


def chunks(*tensors: Tensor, reverse: bool = False) -> Iterator[Slices]:
    """Tensors `(batch, time, hidden)` by steps, backwards if `reverse`: first those that fill no chunk, then the chunks."""
    steps, order = tensors[0].shape[1], -1 if reverse else 1
    length = max(1, isqrt(steps))
    sizes = [steps % length, steps - steps % length][::order]
    for parts in zip(*(torch.split(whole, sizes, dim=1)[::order] for whole in tensors), strict=True):
        if size := parts[0].shape[1]:
            cut = (part.unflatten(1, (-1, min(size, length))).unbind(2)[::order] for part in parts)
            yield list(zip(*cut, strict=True))


def carried(start: Tensor, left: Tensor, end: Tensor, reverse: bool = False) -> Tensor:
    """The state that each chunk begins with, `(batch, chunks, hidden)`, if the first one begins with `start`.

    Args:
        start: `(batch, hidden)`.
        left: what is left of a state after each chunk, `(batch, chunks, hidden)`.
        end: where each chunk ends from zeros, of the same shape.
        reverse: whether the last chunk is the first.
    """
    order = -1 if reverse else 1
    starts = torch.empty_like(end)
    state, *places = starts.unbind(1)[::order]
    state.copy_(start)
    for a, b, place in zip(left.unbind(1)[::order], end.unbind(1)[::order], places, strict=False):  # nothing follows the last
        state = torch.addcmul(b, a, state, out=place)
    return starts
