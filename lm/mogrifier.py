"""The Mogrifier: input and hidden state gate each other before a cell reads them."""

import torch
from torch import Tensor, nn

from lm.cells import LSTMCell
from lm.layers import Cell, LayerFactory, State, SteppedLayer


class Mogrifier(Cell):
    """A cell whose input and last hidden state gate each other in turns (Melis et al. 2020, eq. 1 and 2); theirs is an LSTM.

        x^i = 2σ(Q^i h^{i−1}) ⊙ x^{i−2}   for odd i from 1 to r,   x^{−1} = x_t
        h^i = 2σ(R^i x^{i−1}) ⊙ h^{i−2}   for even i from 1 to r,  h^0 = h_{t−1}
        h_t, c_t = cell(x^↑, h^↑, c_{t−1}),   with the last of each

    The input is gated by the state, so that no product can be made for all steps at once.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the cell.
        rounds: r; without any it is the plain cell.
        rank: of Q and R, each then the product of two matrices; None for full ones.

    Raises:
        TypeError: if the layer cannot go step by step.
        ValueError: if there are fewer than 0 rounds, or the rank is none below both sizes.
    """

    def __init__(
        self, input_size: int, hidden_size: int, cell: LayerFactory = LSTMCell, rounds: int = 5, rank: int | None = None
    ) -> None:
        super().__init__(input_size, hidden_size)
        inner = cell(input_size, hidden_size)
        if not isinstance(inner, SteppedLayer):
            raise TypeError(
                f"Mogrifier changes what is read at every step: give it a cell that has steps, not {type(inner).__name__}"
            )
        if rounds < 0:
            raise ValueError(f"Mogrifier: there are 0 rounds or more, got {rounds}")
        if rank is not None and not 0 < rank < min(input_size, hidden_size):
            raise ValueError(
                f"Mogrifier: matrices of {hidden_size} x {input_size} have no low rank {rank}; give a positive one below both"
                " sizes, or none for full matrices"
            )
        self.cell = inner
        self.state_parts = inner.state_parts
        self.gates = inner.gates
        sizes = [(hidden_size, input_size), (input_size, hidden_size)]
        self.maps = nn.ModuleList(product(*sizes[index % 2], rank) for index in range(rounds))

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        hidden, *others = state
        for index, gate in enumerate(self.maps):
            if index % 2 == 0:
                x = 2 * torch.sigmoid(gate(hidden)) * x
            else:
                hidden = 2 * torch.sigmoid(gate(x)) * hidden
        return self.cell.step(self.cell.project(x), (hidden, *others))

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        return self.cell.first_state(x)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer; Q and R hold no gate of the cell."""
        return self.cell.recurrent_weights()

    def input_weights(self) -> list[Tensor]:
        """See RecurrentLayer; Q and R hold no gate of the cell."""
        return self.cell.input_weights()


def product(input_size: int, output_size: int, rank: int | None) -> nn.Module:
    """A matrix without bias, or the product of two that meet in `rank` features."""
    if rank is None:
        return nn.Linear(input_size, output_size, bias=False)
    return nn.Sequential(nn.Linear(input_size, rank, bias=False), nn.Linear(rank, output_size, bias=False))
