"""Recurrent layers behind one interface: torch's fused networks, a cell unrolled over time, and both directions at once."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

State = tuple[Tensor, ...]
"""The state of one layer: tensors `(directions, batch, hidden)`; the first is what the layer says, others its memory."""


class RecurrentLayer(nn.Module, ABC):
    """One layer of a recurrent network.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t, for one direction.

    Attributes:
        output_size: features of what the layer says, twice the hidden size where it reads in both directions.
        gates: how many gates' weights are stacked in each matrix, for initialisations that treat gates apart.
    """

    gates: int = 1

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.output_size = hidden_size

    @abstractmethod
    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """All steps: x `(batch, time, input_size)` and the state before them -> `(batch, time, output_size)`, the state after.

        No state before them stands for zeros.
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


class FusedLayer(RecurrentLayer):
    """A one-layer `nn.RNN`, `nn.GRU` or `nn.LSTM`: all steps in one kernel.

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

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        # The kernel takes one dtype, and on a CPU autocast sees neither to an LSTM's fp32 input nor to a state carried in fp32.
        if x.dtype == torch.float32 and torch.is_autocast_enabled(x.device.type):
            x = x.to(torch.get_autocast_dtype(x.device.type))
        state = None if state is None else tuple(part.to(x.dtype) for part in state)
        if isinstance(self.rnn, nn.LSTM):
            y, state = self.rnn(x, state)
            return y, state
        y, hidden = self.rnn(x, None if state is None else state[0])
        return y, (hidden,)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return [self.rnn.all_weights[0][1]]


class RNN(FusedLayer):
    """Elman's network in torch's fused kernel.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        nonlinearity: Φ of h_t = Φ(W_xh x_t + W_hh h_{t−1} + b).
    """

    def __init__(self, input_size: int, hidden_size: int, nonlinearity: Literal["tanh", "relu"] = "tanh") -> None:
        super().__init__(nn.RNN(input_size, hidden_size, nonlinearity=nonlinearity, batch_first=True))


class GRU(FusedLayer):
    """The gated recurrent unit in torch's fused kernel: the reset gate acts after the recurrent product."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.GRU(input_size, hidden_size, batch_first=True))


class LSTM(FusedLayer):
    """The long short-term memory in torch's fused kernel."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(nn.LSTM(input_size, hidden_size, batch_first=True))


class Cell(RecurrentLayer):
    """A layer written as one step of its equations, unrolled over time.

    A new cell says how many tensors its state has (`state_parts`) and defines `step`; what it computes from x_t alone goes
    into `project`, which sees the inputs of all steps at once: one large product instead of one a step.
    """

    state_parts: int = 1

    def project(self, x: Tensor) -> Tensor:
        """What x contributes, whatever the state: `(batch, time, input_size)` -> `(batch, time, features)`."""
        return x

    @abstractmethod
    def step(self, x: Tensor, state: State) -> State:
        """One step: projected x_t `(batch, features)` and tensors `(batch, hidden)` -> the next state, what is said first."""

    def first_state(self, x: Tensor) -> State:
        """The state before any input, zeros `(batch, hidden)` for each of its parts."""
        return tuple(x.new_zeros(x.shape[0], self.hidden_size) for _ in range(self.state_parts))

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        now = self.first_state(x) if state is None else tuple(part[0].to(x.dtype) for part in state)
        said = []
        for projected in self.project(x).unbind(dim=1):
            now = self.step(projected, now)
            said.append(now[0])
        return torch.stack(said, dim=1), tuple(part.unsqueeze(0) for part in now)


class Bidirectional(RecurrentLayer):
    """Two layers that read the same inputs from both ends; what they say stands side by side.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t in each direction.
        cell: makes the layer of each direction.
    """

    def __init__(self, input_size: int, hidden_size: int, cell: LayerFactory = LSTM) -> None:
        super().__init__(input_size, hidden_size)
        self.ahead = cell(input_size, hidden_size)
        self.back = cell(input_size, hidden_size)
        self.output_size = self.ahead.output_size + self.back.output_size
        self.gates = self.ahead.gates

    def forward(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer; the state holds the forward direction first, as torch.nn does."""
        from_start = None if state is None else tuple(part[:1] for part in state)
        from_end = None if state is None else tuple(part[1:] for part in state)
        ahead, ahead_state = self.ahead(x, from_start)
        back, back_state = self.back(x.flip(1), from_end)
        both = tuple(torch.cat(parts) for parts in zip(ahead_state, back_state, strict=True))
        return torch.cat([ahead, back.flip(1)], dim=-1), both

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return self.ahead.recurrent_weights() + self.back.recurrent_weights()
