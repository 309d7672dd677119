"""Products that are taken step by step, and whose gradient is taken at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from lm.precision import product_dtype, wide

WORTH_GATHERING = 2**17
"""Weights of a matrix from which on it is worth it; half as many where they are cast. Fewer are sooner multiplied and added."""


class Gathering:
    """A part with one product in each step of a loop; within `gathered`, the gradients of its weight are made once for all steps.

    Autograd multiplies the errors and the inputs of each step by themselves, in matrices as long as a batch has rows, and adds
    every product up. Side by side they are one product, faster by as much as the batch is small; and in mixed precision the
    weights are cast once, and their gradient is no sum of numbers in half precision.
    """

    steps = 0
    products: "Products | None" = None

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W x + b of the same weights in each step, `(batch, in_features)` -> `(batch, out_features)`.

        The weights are `(out_features, in_features)`; or without a bias one such matrix for each row of a batch, for x
        `(batch, rows, in_features)`.
        """
        if self.products is None:
            self.products = step_products(weight, bias, self.steps)
        return multiplied(x, weight, bias) if self.products is None else self.products(x)


class StepLinear(Gathering, nn.Linear):
    """A linear map inside a loop over time."""

    def forward(self, x: Tensor) -> Tensor:
        """See Gathering."""
        return self.product(x, self.weight, self.bias)


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """W x + b, of one W or of one for each row of a batch."""
    return linear(x, weight, bias) if weight.dim() == 2 else x.to(weight.dtype) @ weight.mT


@contextmanager
def gathered(module: nn.Module, steps: int) -> Iterator[None]:
    """Within this, every part of a module that is Gathering gathers its inputs and errors, if it has so many steps.

    A second derivative of what is computed here is refused.
    """
    parts = [part for part in module.modules() if isinstance(part, Gathering)]
    try:
        for part in parts:
            part.steps = steps
        yield
    finally:
        for part in parts:
            part.steps, part.products = 0, None


def step_products(weight: Tensor, bias: Tensor | None, steps: int) -> "Products | None":
    """The products of a weight with so many steps; None if there is no gradient to gather, or it is small."""
    enough = WORTH_GATHERING if product_dtype(weight) == weight.dtype else WORTH_GATHERING // 2
    worth = steps > 1 and torch.is_grad_enabled() and weight.requires_grad and weight.numel() >= enough
    return Products(weight, bias, steps) if worth else None


class Products:
    """The products of a weight with the steps of one pass.

    Args:
        weight: `(out_features, in_features)`, or one for each row of a batch.
        bias: `(out_features,)` or None.
        steps: products there will be at most.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, steps: int) -> None:
        self.parameters = weight, bias
        # A row's own matrix is too small a product to be any faster in half precision on a CPU.
        small = weight.dim() > 2 and weight.device.type == "cpu"
        dtype = wide(weight.dtype) if small else product_dtype(weight)
        self.operands = weight.detach().to(dtype), None if bias is None else bias.detach().to(dtype)
        self.steps = steps
        self.inputs: list[Tensor] = []
        self.places: tuple[Tensor, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """W x + b; a step too many, or one of another shape than the first, has a gradient of its own."""
        weight, bias = self.operands
        if not self.inputs:
            place = weight.new_zeros(()).expand(self.steps, *x.shape[:-1], weight.shape[-2])  # which take no memory
            places: Tensor = ErrorPlaces.apply(*self.parameters, place, self.inputs)  # type: ignore[no-untyped-call]
            self.places = places.unbind()
        elif len(self.inputs) == self.steps or x.shape != self.inputs[0].shape:
            return multiplied(x, *self.parameters)
        place = self.places[len(self.inputs)]
        x = x.to(weight.dtype)
        self.inputs.append(x.detach())
        product: Tensor = Product.apply(x, weight, bias, place)  # type: ignore[no-untyped-call]
        return product


class ErrorPlaces(torch.autograd.Function):
    """A place for the error of each step: what arrives as their gradient becomes that of the weight and the bias."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, _bias: Tensor | None, zeros: Tensor, inputs: list[Tensor]) -> Tensor:
        """Places `(steps, batch, out_features)` in the type of the errors; the inputs are filled in later, step by step."""
        ctx.inputs, ctx.dtype, ctx.matrices = inputs, weight.dtype, weight.dim() > 2
        return zeros.view_as(zeros)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, errors: Tensor) -> tuple[Tensor | None, ...]:
        """Σ error ⊗ input over all steps and rows, and Σ error."""
        errors = errors[: len(ctx.inputs)]
        if ctx.matrices:
            inputs, errors = torch.cat(ctx.inputs, dim=1), errors.transpose(0, 1).flatten(1, 2)
        else:
            inputs, errors = torch.cat([x.flatten(0, -2) for x in ctx.inputs]), errors.flatten(0, -2)
        # torch adds half precision up in fp32 and rounds once; a cast before it would take three times as long.
        of_bias = errors.sum(dim=0).to(ctx.dtype) if ctx.needs_input_grad[1] else None
        return (errors.mT @ inputs).to(ctx.dtype), of_bias, None, None


class Product(torch.autograd.Function):
    """W x + b, whose error goes to its place and not to the weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, _place: Tensor) -> Tensor:
        """The product; the weight has no gradient."""
        ctx.save_for_backward(weight)
        if weight.dim() == 2:
            return linear(x, weight, bias)
        product = x.new_empty(*x.shape[:-1], weight.shape[-2])
        return torch.bmm(x, weight.mT, out=product)  # whose type autocast leaves alone

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor | None, ...]:
        """Wᵀ error, and the error."""
        (weight,) = ctx.saved_tensors
        return error @ weight if ctx.needs_input_grad[0] else None, None, None, error
