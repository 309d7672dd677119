"""Cells that forget and add by gates of the inputs alone, so that all steps of a window run at once."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import Function, once_differentiable
from torch.nn.functional import linear

from lm.layers import Cell, State, linear_ahead
from lm.leaky import leaky_recurrence
from lm.lengths import last, silenced
from lm.precision import product_dtype, wide
from lm.scan import linear_recurrence


def gate_products(x: Tensor, weight: Tensor, bias: Tensor | None, gates: int) -> tuple[Tensor, ...]:
    """W x + b `(..., hidden)` of each gate, from x `(..., input)` and the weights of all, `(gates·hidden, input)`.

    One product of all gates would have to be cut, and the gradients of the cuts put together: a copy as large as all of them.
    """
    dtype = product_dtype(weight)
    bias = None if bias is None else bias.to(dtype)
    products: tuple[Tensor, ...] = GateProducts.apply(x.to(dtype), weight.to(dtype), bias, gates)  # type: ignore[no-untyped-call]
    return products


class GateProducts(Function):
    """The products, and of their errors one gradient for x, one for the weights and one for the biases."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gates: int) -> tuple[Tensor, ...]:
        """All of one dtype."""
        ctx.save_for_backward(x, weight)
        biases = [None] * gates if bias is None else bias.chunk(gates)
        return tuple(linear(x, *parameters) for parameters in zip(weight.chunk(gates), biases, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *errors: Tensor) -> tuple[Tensor | None, ...]:
        """Σ_gates Wᵀ e, and Σ e ⊗ x and Σ e of each gate."""
        x, weight = ctx.saved_tensors
        by_row = [error.flatten(0, -2) for error in errors]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            first, *others = zip(by_row, weight.chunk(len(by_row)), strict=True)
            of_x = torch.mm(*first)
            for operands in others:
                of_x.addmm_(*operands)
            of_x = of_x.view_as(x)
        if ctx.needs_input_grad[1]:
            of_weight = torch.cat([error.T @ x.flatten(0, -2) for error in by_row])
        if ctx.needs_input_grad[2]:
            of_bias = torch.cat([error.sum(dim=0) for error in by_row])
        return of_x, of_weight, of_bias, None


class ScannedCell(Cell):
    """A cell whose memory is c_t = a_t ⊙ c_{t−1} + (1 − a_t) ⊙ b_t, where a and b depend on no state: a scan, not a loop.

    A new one says what they are (`recurrence`), and what it says of a memory where that is not the memory itself (`said`, with
    `state_parts = 2`). Its gates are computed in fp32 at least: in bf16 a unit that keeps 0.999 would keep everything.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        gates: products with x_t, stacked in one matrix.
        bias: whether each product has one.
        with_input: hand x_t itself on behind the products.
    """

    leaky = True
    """Whether it is the above, where `recurrence` gives the logit of a; else it is c_t = a_t ⊙ c_{t−1} + b_t, and a is given."""

    gate_writes = False
    """Whether that logit is of 1 − a, the share that is written."""

    def __init__(self, input_size: int, hidden_size: int, gates: int, bias: bool = True, with_input: bool = False) -> None:
        super().__init__(input_size, hidden_size)
        self.gates = gates
        self.with_input = with_input
        self.from_input = nn.Linear(input_size, gates * hidden_size, bias=bias)

    @abstractmethod
    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """a or a logit, and b, `(..., hidden)`, from the products of the gates, `(..., hidden)` each, of one step or of all.

        Behind the products stands x_t, if the cell is `with_input`.
        """

    def said(self, parts: Sequence[Tensor], memory: Tensor) -> Tensor:
        """h `(..., hidden)` from the same and c `(..., hidden)`."""
        return memory

    def product_bias(self) -> Tensor | None:
        """b `(gates·hidden,)` of the products with x_t."""
        return self.from_input.bias

    def project(self, x: Tensor) -> Tensor:
        """W x + b of every gate, and x."""
        product = linear(x, self.from_input.weight, self.product_bias())
        return torch.cat([product, x], dim=-1) if self.with_input else product

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer."""
        product = linear_ahead(known, self.from_input.weight, self.product_bias())
        if not self.with_input:
            return product
        return lambda time, rest: torch.cat([product(time, rest), known[:, time], rest], dim=-1)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        old = state[self.state_parts - 1]
        parts = self.parts(x)
        gate, value = self.recurrence(parts)
        memory = old.to(value.dtype)
        if self.leaky:
            start, end = (memory, value) if self.gate_writes else (value, memory)
            memory = torch.lerp(start, end, gate.sigmoid())
        else:
            memory = torch.addcmul(value, gate, memory)
        return tuple(part.to(old.dtype) for part in self.state(parts, memory))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        products = gate_products(x, self.from_input.weight, self.product_bias(), self.gates)
        return self.scan([*products, x] if self.with_input else products, state, lengths)

    def scan(self, projected: Sequence[Tensor], state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """All steps, as `forward`, from the product of each gate `(batch, time, hidden)`, and x where it is read."""
        parts = [part.to(wide(part.dtype)) for part in projected]
        recurrence = partial(leaky_recurrence, gate_writes=self.gate_writes) if self.leaky else linear_recurrence
        memory = recurrence(*self.recurrence(parts), None if state is None else state[self.state_parts - 1][0])
        states = self.state(parts, memory)
        said = silenced(states[0].to(projected[0].dtype), lengths)
        return said, tuple(last(part, lengths).unsqueeze(0) for part in states)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(..., parts·hidden)` as its parts, cut once: the gradient of each cut is as large as the whole."""
        return torch.split(x.to(wide(x.dtype)), self.hidden_size, dim=-1)

    def state(self, parts: Sequence[Tensor], memory: Tensor) -> State:
        """h and c, or c alone."""
        return (memory,) if self.state_parts == 1 else (self.said(parts, memory), memory)
