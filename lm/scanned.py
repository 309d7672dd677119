"""Cells that forget and add by gates of the inputs alone, so that all steps of a window run at once."""

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from lm.layers import Cell, State, linear_ahead
from lm.lengths import last, silenced
from lm.precision import wide
from lm.scan import linear_recurrence


class ScannedCell(Cell):
    """A cell whose memory is c_t = a_t ⊙ c_{t−1} + b_t, where a and b depend on no state: a scan over time, not a loop.

    A new one says what a and b are (`recurrence`), and what it says of a memory where that is not the memory itself (`said`,
    with `state_parts = 2`). Its gates are computed in fp32 at least: in bf16 a unit that keeps 0.999 would keep everything.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        gates: products with x_t, stacked in one matrix.
        bias: whether each product has one.
        with_input: hand x_t itself on behind the products.
    """

    def __init__(self, input_size: int, hidden_size: int, gates: int, bias: bool = True, with_input: bool = False) -> None:
        super().__init__(input_size, hidden_size)
        self.gates = gates
        self.with_input = with_input
        self.from_input = nn.Linear(input_size, gates * hidden_size, bias=bias)

    @abstractmethod
    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """a and b `(..., hidden)` from the products of the gates, `(..., hidden)` each, of one step or of all.

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
        decay, value = self.recurrence(parts)
        memory = torch.addcmul(value, decay, old.to(value.dtype))
        return tuple(part.to(old.dtype) for part in self.state(parts, memory))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        product = linear(x, self.from_input.weight, self.product_bias())
        return self.scan([product, x] if self.with_input else [product], state, lengths)

    def scan(self, projected: Sequence[Tensor], state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """All steps, as `forward`, from the products of all gates `(batch, time, gates·hidden)`, and x where it is read."""
        parts = [part for whole in projected for part in self.parts(whole)]
        memory = linear_recurrence(*self.recurrence(parts), None if state is None else state[self.state_parts - 1][0])
        states = self.state(parts, memory)
        said = silenced(states[0].to(projected[0].dtype), lengths)
        return said, tuple(last(part, lengths).unsqueeze(0) for part in states)

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """`(..., parts·hidden)` as its parts, cut once: the gradient of each cut is as large as the whole."""
        return torch.split(x.to(wide(x.dtype)), self.hidden_size, dim=-1)

    def state(self, parts: Sequence[Tensor], memory: Tensor) -> State:
        """h and c, or c alone."""
        return (memory,) if self.state_parts == 1 else (self.said(parts, memory), memory)
