"""A layer around another one, of which it changes every step."""

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor

from lm.layers import Cell, LayerFactory, State, SteppedLayer


class WrappedCell(Cell):
    """A layer, fused or not, that is computed step by step so that a subclass can change each step in `stepper`.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the layer.

    Raises:
        TypeError: if the layer cannot go step by step.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory) -> None:
        super().__init__(input_size, hidden_size)
        inner = cell(input_size, hidden_size)
        if not isinstance(inner, SteppedLayer):
            raise TypeError(
                f"{type(self).__name__} reaches into every step: give it a layer that has steps, such as lm.cells.LSTMCell, not"
                f" {type(inner).__name__}; with bidirectional: true each direction gets one of its own"
            )
        self.cell = inner
        self.state_parts = inner.state_parts
        self.gates = inner.gates

    @abstractmethod
    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer."""

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer: the first step of a pass."""
        return self.stepper(state[0])(x, state)

    def project(self, x: Tensor) -> Tensor:
        """See SteppedLayer."""
        return self.cell.project(x)

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer."""
        return self.cell.project_ahead(known)

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        return self.cell.first_state(x)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer: those of the layer within."""
        return self.cell.recurrent_weights()

    def input_weights(self) -> list[Tensor]:
        """See RecurrentLayer: those of the layer within."""
        return self.cell.input_weights()
