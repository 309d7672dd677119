"""How far gradients flow back through time: cells that let them through whole, in part, or not at all."""

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor

from lm.cells import LSTMCell
from lm.layers import LayerFactory, State
from lm.wrapped import WrappedCell


class Truncation(WrappedCell):
    """A layer, unrolled, whose gradient from step t to step t − 1 is multiplied by ξ_t; what it computes stays the same.

        z_t = ∂h_t/∂w directly + ξ_t · ∂h_t/∂h_{t−1} · z_{t−1}

    With ξ = 1 everywhere that is the full gradient of a window, which a layer has without this one. In a window that carries
    the state of the one before, the gradient ends at the window's beginning in any case.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the layer, fused or not; it is computed step by step.

    Raises:
        TypeError: if the layer cannot go step by step.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory = LSTMCell) -> None:
        super().__init__(input_size, hidden_size, cell)

    @abstractmethod
    def weights(self, like: Tensor) -> Callable[[], Tensor | float]:
        """What draws ξ_t for each step of a pass in turn, one number or `(batch, 1)`.

        Args:
            like: a tensor `(batch, hidden)` of the states' device and precision.
        """

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer."""
        inner, draw = self.cell.stepper(like), self.weights(like)

        def step(x: Tensor, state: State) -> State:
            weight = draw() if self.training else 1.0
            return inner(x, tuple(with_gradient(part, weight) for part in state))

        return step


class RegularTruncation(Truncation):
    """Backpropagation cut every τ steps of a window: ξ_t = 0 at t = τ, 2τ, ... (counted from 0), else 1.

    So a window of several segments carries the state from one to the next, as windows of τ steps do, in one step of the
    optimizer.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the layer.
        steps: τ.

    Raises:
        ValueError: if there are no steps.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory = LSTMCell, steps: int = 16) -> None:
        super().__init__(input_size, hidden_size, cell)
        if steps < 1:
            raise ValueError(f"RegularTruncation: a gradient flows through 1 step or more, got steps={steps}")
        self.steps = steps

    def weights(self, like: Tensor) -> Callable[[], float]:
        """See Truncation."""
        time = -1

        def draw() -> float:
            nonlocal time
            time += 1
            return float(time % self.steps > 0)

        return draw


class RandomTruncation(Truncation):
    """Backpropagation cut at random and made up for (Tallec & Ollivier 2017): its mean is the full gradient of the window.

        ξ_t = 0 with probability 1 − π, else 1/π; so E ξ_t = 1, and E z_t = ∂h_t/∂w

    Each row of a batch is cut where it falls, into segments of 1/(1 − π) steps in the mean. What is not cut for long grows as a
    power of 1/π: clip gradients.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the layer.
        keep: π.

    Raises:
        ValueError: if that is no probability above 0.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory = LSTMCell, keep: float = 0.95) -> None:
        super().__init__(input_size, hidden_size, cell)
        if not 0 < keep <= 1:
            raise ValueError(f"RandomTruncation: keep is a probability above 0, got {keep}")
        self.keep = keep

    def weights(self, like: Tensor) -> Callable[[], Tensor]:
        """See Truncation."""
        return lambda: like.new_empty(len(like), 1).bernoulli_(self.keep) / self.keep


def with_gradient(x: Tensor, weight: Tensor | float) -> Tensor:
    """The same numbers, whose gradient is multiplied by a weight."""
    if isinstance(weight, float) and weight == 1:
        return x
    fixed = x.detach()
    return fixed if isinstance(weight, float) and weight == 0 else fixed + weight * (x - fixed)
