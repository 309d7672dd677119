"""Dropout of recurrent weights."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from lm.dropout import Dropout, dropout_mask
from lm.layers import LSTM, FusedLayer, LayerFactory, State, SteppedLayer
from lm.precision import product_dtype


class WeightDrop(SteppedLayer):
    """DropConnect on the matrices that multiply h_{t−1} (Wan et al. 2013; Merity et al. 2017, §4.1).

        W̃_h = m ⊙ W_h / (1 − rate),   m ~ Bernoulli(1 − rate) for each weight

    In training one mask is drawn for a pass over a window, and serves all its rows and steps. Input matrices and biases stay,
    and in evaluation so does everything. The layer's own weights are never changed: a pass computes with their product with
    the mask.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the layer, fused or not; to read in both directions, put this into Bidirectional.
        rate: probability that a weight is zeroed.

    Raises:
        TypeError: if the layer has no step, as one of both directions.
        ValueError: if it has no recurrent matrix, or the rate is no probability below 1.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory = LSTM, rate: float = 0.5) -> None:
        super().__init__(input_size, hidden_size)
        layer = cell(input_size, hidden_size)
        if not isinstance(layer, SteppedLayer):
            raise TypeError(
                f"WeightDrop drops weights of one direction: give it a layer such as lm.layers.LSTM, not {type(layer).__name__};"
                " with bidirectional: true each direction gets a WeightDrop of its own"
            )
        if not layer.recurrent_weights():
            raise ValueError(f"WeightDrop: {type(layer).__name__} multiplies its last state by no matrix; leave WeightDrop out")
        self.layer = layer
        self.dropout = Dropout(rate)
        self.output_size = layer.output_size
        self.state_parts = layer.state_parts
        self.gates = layer.gates

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        # A fused kernel casts its weights itself, and on a GPU it refuses to be given weights of two types.
        cast = not isinstance(self.layer, FusedLayer)
        result: tuple[Tensor, State] = self.with_dropped_weights(self.layer, cast=cast)(x, state, lengths)
        return result

    def with_dropped_weights(self, function: Callable[..., Any], *, cast: bool = True) -> Callable[..., Any]:
        """A function of the layer, with the mask that is drawn here; what is dropped in the type of products, if cast."""
        if not self.dropout.active:
            return function
        call, rate = Call(self.layer), self.dropout.rate
        recurrent = {id(weight) for weight in self.recurrent_weights()}
        # Cast once: autocast would cast what is no parameter again at every step.
        dropped = {
            name: (weight * dropout_mask(weight, rate)).to(product_dtype(weight) if cast else weight.dtype)
            for name, weight in call.named_parameters()
            if id(weight) in recurrent
        }
        return lambda *arguments: functional_call(call, dropped, (function, *arguments), tie_weights=False)

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        return self.layer.first_state(x)

    def project(self, x: Tensor) -> Tensor:
        """See SteppedLayer."""
        return self.layer.project(x)

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer."""
        return self.layer.project_ahead(known)

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer: one mask, drawn here."""
        return self.with_dropped_weights(self.layer.stepper(like))

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer: one step with a mask of its own."""
        return self.stepper(state[0])(x, state)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer: the weights themselves, without a mask."""
        return self.layer.recurrent_weights()

    def input_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return self.layer.input_weights()


class Call(nn.Module):
    """What `functional_call` needs to call any function of a layer, and not its forward alone."""

    def __init__(self, layer: SteppedLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """The function's value."""
        return function(*arguments)
