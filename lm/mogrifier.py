"""The Mogrifier: input and hidden state gate each other before a cell reads them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lm.cells import LSTMCell
from lm.layers import Cell, LayerFactory, State
from lm.step_linear import StepLinear
from lm.wrapped import WrappedCell


class Mogrifier(WrappedCell):
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
        super().__init__(input_size, hidden_size, cell)
        if rounds < 0:
            raise ValueError(f"Mogrifier: there are 0 rounds or more, got {rounds}")
        if rank is not None and not 0 < rank < min(input_size, hidden_size):
            raise ValueError(
                f"Mogrifier: matrices of {hidden_size} x {input_size} have no low rank {rank}; give a positive one below both"
                " sizes, or none for full matrices"
            )
        sizes = [(hidden_size, input_size), (input_size, hidden_size)]
        self.maps = nn.ModuleList(product(*sizes[index % 2], rank) for index in range(rounds))

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer."""
        inner = self.cell.stepper(like)

        def step(x: Tensor, state: State) -> State:
            hidden, *others = state
            for index, gate in enumerate(self.maps):
                if index % 2 == 0:
                    x = 2 * torch.sigmoid(gate(hidden)) * x
                else:
                    hidden = 2 * torch.sigmoid(gate(x)) * hidden
            return inner(self.cell.project(x), (hidden, *others))

        return step

    def project(self, x: Tensor) -> Tensor:
        """See SteppedLayer: the state gates x before the cell's product."""
        return x

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer: nothing can be computed ahead."""
        return Cell.project_ahead(self, known)


def product(input_size: int, output_size: int, rank: int | None) -> nn.Module:
    """A matrix without bias, or the product of two that meet in `rank` features."""
    if rank is None:
        return StepLinear(input_size, output_size, bias=False)
    return nn.Sequential(StepLinear(input_size, rank, bias=False), StepLinear(rank, output_size, bias=False))
