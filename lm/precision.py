"""What is computed in which floating-point type."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import Function


def product_dtype(weight: Tensor) -> torch.dtype:
    """What a matrix product with this weight computes in: autocast's type where autocast is on, which leaves fp64 alone."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of sums, exponentials and logarithms: at least fp32."""
    return torch.promote_types(dtype, torch.float32)


WORTH_WIDENING = 2**16
"""Numbers from which on it is worth it to widen them for a function of torch that is slow in half precision."""


def tanh_(x: Tensor) -> Tensor:
    """tanh x, which may overwrite x: of half precision on a CPU by way of fp32, 2 to 3 times as fast, casts included."""
    if x.device.type != "cpu" or x.dtype == wide(x.dtype) or x.numel() < WORTH_WIDENING:
        return x.tanh_()
    result: Tensor = WideTanh.apply(x)  # type: ignore[no-untyped-call]
    return result


class WideTanh(Function):
    """tanh in fp32, of which only the result in half precision is kept for the gradient, as torch does."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """tanh x."""
        result = x.to(wide(x.dtype), copy=True).tanh_().to(x.dtype)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        """(1 − tanh²) ⊙ gradient."""
        (result,) = ctx.saved_tensors
        of_x: Tensor = torch.ops.aten.tanh_backward(gradient, result)
        return of_x
