"""The simple recurrent unit."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from lm.layers import Cell, State
from lm.scanned import ScannedCell


class SRU(ScannedCell):
    """The simple recurrent unit (Lei et al. 2018, eq. 1 to 4).

        f_t = σ(W_f x_t + v_f ⊙ c_{t−1} + b_f)
        c_t = f_t ⊙ c_{t−1} + (1 − f_t) ⊙ (W x_t)
        r_t = σ(W_r x_t + v_r ⊙ c_{t−1} + b_r)
        h_t = r_t ⊙ c_t + (1 − r_t) ⊙ α x_t

    Because of v, c_t is not linear in c_{t−1}, and no scan over time computes it: all products run at once, and then a loop of
    elementwise operations goes through the steps. With `peephole=False` there is no v, as in the paper's first version (arXiv
    1709.02755v1, with the identity for its activation g); then all steps run at once.

    Where input and output differ in size, x_t in the last equation is W_x x_t, as in the authors' code. Weights start uniform
    in ±√(3/input) and biases 0, v as in that code; α = √3 makes up for what the highway then loses of the input's variance.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        peephole: whether there is a v.
        rescale: whether α is √3; else it is 1.
    """

    state_parts = 2

    def __init__(self, input_size: int, hidden_size: int, peephole: bool = True, rescale: bool = True) -> None:
        equal = input_size == hidden_size
        super().__init__(input_size, hidden_size, gates=3 if equal else 4, bias=False, with_input=equal)
        nn.init.uniform_(self.from_input.weight, -((3 / input_size) ** 0.5), (3 / input_size) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(2 * hidden_size))
        self.peephole = nn.Parameter(torch.empty(2 * hidden_size).uniform_(-(1.5**0.5), 1.5**0.5)) if peephole else None
        self.scale = 3**0.5 if rescale else 1.0

    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ScannedCell."""
        forget, _, candidate, _ = parts
        return forget, candidate

    def said(self, parts: Sequence[Tensor], memory: Tensor) -> Tensor:
        """See ScannedCell."""
        _, reset, _, skip = parts
        return torch.lerp(self.scale * skip, memory, reset.sigmoid())

    def product_bias(self) -> Tensor:
        """See ScannedCell: the two gates have one."""
        return pad(self.bias, (0, (self.gates - 2) * self.hidden_size))

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        if self.peephole is not None:
            looked = self.peephole * torch.cat([state[1], state[1]], dim=-1)
            x = x + pad(looked, (0, x.shape[-1] - looked.shape[-1]))
        return super().step(x, state)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        return super().forward(x, state, lengths) if self.peephole is None else Cell.forward(self, x, state, lengths)
