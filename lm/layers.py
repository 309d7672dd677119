"""Recurrent layers behind one interface: torch's fused networks, and a cell unrolled over time."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from lm.gru_steps import gru_steps, stacked
from lm.lengths import last, silenced
from lm.precision import product_dtype
from lm.step_linear import Gathering, gathered, step_products

State = tuple[Tensor, ...]
"""The state of one layer: tensors `(directions, batch, hidden)`; the first is what the layer says, others its memory.

Behind them there may be inputs that it still needs, `(directions, batch, input)`.
"""


class RecurrentLayer(nn.Module, ABC):
    """One layer of a recurrent network.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t, for one direction.

    Attributes:
        output_size: features of what the layer says, twice the hidden size where it reads in both directions.
        gates: how many gates' weights are stacked in each matrix, for initialisations that treat gates apart.
        state_parts: tensors `(directions, batch, hidden)` in its state; it may have others behind them.
    """

    gates: int = 1
    state_parts: int = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size

    @abstractmethod
    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """All steps: x `(batch, time, input_size)` and the state before them -> `(batch, time, output_size)`, the state after.

        No state before them stands for zeros. Of a row only the first `lengths` steps are read, at least one; after them the
        layer says zeros, and the state after is that after the last step read.
        """

    def recurrent_weights(self) -> list[Tensor]:
        """The matrices `(gates·hidden, hidden)` that multiply h_{t−1}."""
        return []

    def input_weights(self) -> list[Tensor]:
        """The matrices `(gates·hidden, input)` that multiply x_t; by default every matrix that is not recurrent."""
        recurrent = {id(weight) for weight in self.recurrent_weights()}
        return [weight for weight in self.parameters() if weight.dim() == 2 and id(weight) not in recurrent]


LayerFactory = Callable[[int, int], RecurrentLayer]
"""Makes a layer from its input size and hidden size: a layer class, or a partial of one with its other arguments."""


class SteppedLayer(RecurrentLayer):
    """A layer that can also go one step at a time, for a network whose next input depends on its last output.

    What it computes from x_t alone is `project`, which may see the inputs of all steps at once; the rest of a step is `step`.
    """

    def project(self, x: Tensor) -> Tensor:
        """What x contributes, whatever the state: `(..., input_size)` -> `(..., features)`."""
        return x

    @abstractmethod
    def step(self, x: Tensor, state: State) -> State:
        """One step: projected x_t `(batch, features)` and the state before -> the next state, what is said first."""

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """`step` for one pass over sequences: what is drawn at random once a pass is drawn here.

        Args:
            like: any tensor `(batch, hidden)` of the states' device and precision.
        """
        return self.step

    def first_state(self, x: Tensor) -> State:
        """The state before any input, zeros `(batch, hidden)` for each of its parts; one with others makes those too."""
        return tuple(x.new_zeros(x.shape[0], self.hidden_size) for _ in range(self.state_parts))

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """`project` of inputs whose first features `(batch, time, known)` are there before the first step.

        Returns:
            makes the projected input of a step from its number and the rest of its features `(batch, rest)`. Where `project`
            is linear, the product with the known features is done here, for all steps at once.
        """
        return lambda time, rest: self.project(torch.cat([known[:, time], rest], dim=-1))


def linear_ahead(known: Tensor, weight: Tensor, bias: Tensor | None) -> Callable[[int, Tensor], Tensor]:
    """`project_ahead` where `project` is W x + b."""
    of_known, of_rest = weight.tensor_split([known.shape[-1]], dim=1)  # gradients of parts are put together, of slices added up
    steps = linear(known, of_known, bias).unbind(dim=1)
    # Cast once either way: autocast remembers the cast of a parameter, and not that of a part of it.
    product = step_products(of_rest, None, len(steps)) or partial(linear, weight=of_rest.to(product_dtype(weight)))
    return lambda time, rest: steps[time] + product(rest) if rest.shape[1] else steps[time]


class FusedLayer(Gathering, SteppedLayer):
    """A one-layer `nn.RNN`, `nn.GRU` or `nn.LSTM`: all steps in one kernel, or one by one from the same weights.

    Args:
        rnn: the torch network; batch first, one layer, one direction.

    Raises:
        ValueError: if it is another one.
    """

    def __init__(self, rnn: nn.RNNBase) -> None:
        if rnn.num_layers != 1 or rnn.bidirectional or not rnn.batch_first:
            raise ValueError(
                f"FusedLayer holds one batch-first layer of one direction, got {rnn}: stack layers by layer_sizes, and read in"
                " both directions by Bidirectional"
            )
        super().__init__(rnn.input_size, rnn.hidden_size)
        self.rnn = rnn
        self.gates = self.recurrent_weights()[0].shape[0] // rnn.hidden_size

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        # The kernel takes one dtype, and on a CPU autocast sees neither to an LSTM's fp32 input nor to a state carried in fp32.
        if x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        state = None if state is None else tuple(part.to(x.dtype) for part in state)
        before = state if state is None or isinstance(self.rnn, nn.LSTM) else state[0]
        if lengths is None:
            y, after = self.rnn(x, before)
        else:
            packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
            y, after = self.rnn(packed, before)
            y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])
        return y, after if isinstance(after, tuple) else (after,)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return [self.rnn.all_weights[0][1]]

    def project(self, x: Tensor) -> Tensor:
        """See SteppedLayer."""
        weight, _, bias, _ = self.rnn.all_weights[0]
        return linear(x, weight, bias)

    def recur(self, hidden: Tensor) -> Tensor:
        """W_h h + b of every gate."""
        _, weight, _, bias = self.rnn.all_weights[0]
        return self.product(hidden, weight, bias)

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer."""
        weight, _, bias, _ = self.rnn.all_weights[0]
        return linear_ahead(known, weight, bias)


class RNN(FusedLayer):
    """Elman's network in torch's fused kernel.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        nonlinearity: Φ of h_t = Φ(W_xh x_t + W_hh h_{t−1} + b).
    """

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__(nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity, batch_first=True))
        self.activation = torch.tanh if nonlinearity == "tanh" else torch.relu

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        return (self.activation(x + self.recur(state[0])),)


class GRU(FusedLayer):
    """The gated recurrent unit, whose reset gate acts after the recurrent product: in torch's fused kernel on a GPU.

    On a CPU torch has none; there all steps are those of lm.gru_steps, and their gradient is not differentiated again.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.GRU(input_size, hidden_size, batch_first=True))

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        if not steps_are_ours(x):
            return super().forward(x, state, lengths)
        said, after = gru_side_by_side([self], [x], None if state is None else state[0], lengths)
        return said[0], (after,)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer; lm.cells.GRUCell writes the equations out."""
        hidden, recurrent = state[0], self.recur(state[0])
        sizes = [2 * self.hidden_size, self.hidden_size]
        gates_x, candidate_x = torch.split(x, sizes, dim=1)
        gates_h, candidate_h = torch.split(recurrent, sizes, dim=1)
        reset, update = (gates_x + gates_h).sigmoid().chunk(2, dim=1)
        return (torch.lerp(torch.addcmul(candidate_x, reset, candidate_h).tanh(), hidden, update),)


def steps_are_ours(x: Tensor) -> bool:
    """Whether `gru_side_by_side` is faster than torch's own: on a CPU, where torch has no kernel, for more steps than one."""
    return x.device.type == "cpu" and x.shape[1] > 1


def gru_side_by_side(
    layers: Sequence[GRU], inputs: Sequence[Tensor], before: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    """What GRUs of one size say on a CPU, all in one pass.

    Args:
        layers: of them.
        inputs: of each `(batch, time, input_size)`.
        before: h before the first step, `(layers, batch, hidden)`; None stands for zeros.
        lengths: see RecurrentLayer.

    Returns:
        `(layers, batch, time, hidden)`, and after the last step `(layers, batch, hidden)`.
    """
    x = stacked([one.to(product_dtype(one)) for one in inputs])
    before = x.new_zeros(*x.shape[:2], layers[0].hidden_size) if before is None else before
    said = silenced(gru_steps(x, [layer.rnn.all_weights[0] for layer in layers], before), lengths)
    return said, last(said, lengths)


class LSTM(FusedLayer):
    """The long short-term memory in torch's fused kernel."""

    state_parts = 2

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.LSTM(input_size, hidden_size, batch_first=True))

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer; lm.cells.LSTMCell writes the equations out."""
        hidden, memory = state
        input_gate, forget_gate, candidate, output_gate = (x + self.recur(hidden)).chunk(4, dim=1)
        memory = torch.addcmul(forget_gate.sigmoid() * memory, input_gate.sigmoid(), candidate.tanh())
        return output_gate.sigmoid() * memory.tanh(), memory


class Cell(SteppedLayer):
    """A layer written as one step of its equations, unrolled over time.

    A new cell says how many tensors its state has (`state_parts`) and defines `step`; what it computes from x_t alone goes
    into `project`, which sees the inputs of all steps at once: one large product instead of one a step. Products within a step
    that are a StepLinear have their weights' gradients made at once, and where these are large no second derivative.
    """

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        now = self.first_state(x) if state is None else tuple(part[0].to(x.dtype) for part in state)
        said, projected, step = [], self.project(x).unbind(dim=1), self.stepper(now[0])
        with gathered(self, len(projected)):
            for time, known in enumerate(projected):
                new = step(known, now)
                if lengths is None:
                    now = new
                    said.append(now[0])
                else:
                    reading = (time < lengths.clamp(min=1))[:, None]
                    now = tuple(after.where(reading, before) for after, before in zip(new, now, strict=True))
                    said.append(now[0] * reading)
        return torch.stack(said, dim=1), tuple(part.unsqueeze(0) for part in now)
