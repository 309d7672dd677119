"""Recurrent cells, each written from its equations."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from lm.layers import Cell, LayerFactory, State, linear_ahead
from lm.step_linear import StepLinear
from lm.wrapped import WrappedCell

Drop = Callable[[Tensor], Tensor]
Activation = Literal["tanh", "relu", "leaky_relu", "sigmoid"]
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "leaky_relu": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
}


def unchanged(x: Tensor) -> Tensor:
    """Nothing dropped."""
    return x


class GatedCell(Cell):
    """What the cells below share: one product with the input and one with the last hidden state, for all gates at once.

    With layer normalisation each product is normalised by itself, over all gates (Ba et al. 2016, eq. 20); its bias takes the
    place of b.
    All weights start uniform in ±1/√hidden, as torch's fused layers do.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        layer_norm: normalise between time steps.
    """

    recurrent_bias = False

    def __init__(self, input_size: int, hidden_size: int, layer_norm: bool = False) -> None:
        super().__init__(input_size, hidden_size)
        self.from_input = StepLinear(input_size, self.gates * hidden_size, bias=not layer_norm)
        self.from_hidden = StepLinear(hidden_size, self.gates * hidden_size, bias=self.recurrent_bias and not layer_norm)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden_size**-0.5), hidden_size**-0.5)
        self.norm_input: nn.Module = nn.LayerNorm(self.gates * hidden_size) if layer_norm else nn.Identity()
        self.norm_hidden: nn.Module = nn.LayerNorm(self.gates * hidden_size) if layer_norm else nn.Identity()

    def project(self, x: Tensor) -> Tensor:
        """W_x x + b of every gate."""
        projected: Tensor = self.norm_input(self.from_input(x))
        return projected

    def project_ahead(self, known: Tensor) -> Callable[[int, Tensor], Tensor]:
        """See SteppedLayer; a normalisation needs the whole product."""
        if isinstance(self.norm_input, nn.Identity):
            return linear_ahead(known, self.from_input.weight, self.from_input.bias)
        return super().project_ahead(known)

    def recur(self, hidden: Tensor) -> Tensor:
        """W_h h of every gate."""
        product: Tensor = self.norm_hidden(self.from_hidden(hidden))
        return product

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return [self.from_hidden.weight]


class ElmanCell(GatedCell):
    """The simple recurrent network (Elman 1990).

        h_t = Φ(W_xh x_t + W_hh h_{t−1} + b_h)

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        activation: Φ.
        layer_norm: normalise between time steps.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Activation = "tanh",
        layer_norm: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, layer_norm)
        self.activation = activation

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        (hidden,) = state
        return (ACTIVATIONS[self.activation](x + self.recur(hidden)),)


class SharedMatrixCell(Cell):
    """A loop over a multilayer perceptron, with no matrix for the input (fast.ai book, chapter 12, `LMModel2`).

        h_t = ReLU(W_hh (h_{t−1} + x_t) + b)

    Args:
        input_size: features of x_t, which are added to h and so have to be as many.
        hidden_size: features of h_t.

    Raises:
        ValueError: if the sizes differ.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        if input_size != hidden_size:
            raise ValueError(
                f"SharedMatrixCell adds its input to its hidden state: give the embedding as many features as the layer has,"
                f" not {input_size} and {hidden_size}"
            )
        self.from_hidden = StepLinear(hidden_size, hidden_size)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        (hidden,) = state
        return (torch.relu(self.from_hidden(hidden + x)),)

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return [self.from_hidden.weight]


class WritingCell(GatedCell):
    """A gated cell that writes a candidate, made from both products, beside what it keeps."""

    @abstractmethod
    def write(self, x: Tensor, recurrent: Tensor, state: State, drop: Drop = unchanged) -> State:
        """The next state.

        Args:
            x: projected x_t, `(batch, gates·hidden)`.
            recurrent: `recur` of h_{t−1}, of the same shape.
            state: the last one, tensors `(batch, hidden)`.
            drop: what is done to the candidate before it is written.
        """

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        return self.write(x, self.recur(state[0]), state)


class GRUCell(WritingCell):
    """The gated recurrent unit in torch's form: the reset gate acts after the recurrent product, which has a bias of its own.

    r_t = σ(W_xr x_t + W_hr h_{t−1} + b_r)
    u_t = σ(W_xu x_t + W_hu h_{t−1} + b_u)
    h̃_t = tanh(W_xh x_t + b_h + r_t ⊙ (W_hh h_{t−1} + b'_h))
    h_t = u_t ⊙ h_{t−1} + (1 − u_t) ⊙ h̃_t
    """

    gates = 3
    recurrent_bias = True

    def write(self, x: Tensor, recurrent: Tensor, state: State, drop: Drop = unchanged) -> State:
        """See WritingCell."""
        (hidden,) = state
        reset_x, update_x, candidate_x = x.chunk(3, dim=-1)
        reset_h, update_h, candidate_h = recurrent.chunk(3, dim=-1)
        reset = (reset_x + reset_h).sigmoid()
        update = (update_x + update_h).sigmoid()
        candidate = drop((candidate_x + reset * candidate_h).tanh())
        return (update * hidden + (1 - update) * candidate,)


class ResetFirstGRUCell(GatedCell):
    """The gated recurrent unit as first published (Cho et al. 2014) and taught: the reset gate acts before the product.

        r_t = σ(W_xr x_t + W_hr h_{t−1} + b_r)
        u_t = σ(W_xu x_t + W_hu h_{t−1} + b_u)
        h̃_t = tanh(W_xh x_t + W_hh (r_t ⊙ h_{t−1}) + b_h)
        h_t = u_t ⊙ h_{t−1} + (1 − u_t) ⊙ h̃_t

    Texts that keep the old state by 1 − u (the fast.ai book) have the same cell with the update gate's weights negated.
    """

    gates = 3

    def __init__(self, input_size: int, hidden_size: int, layer_norm: bool = False) -> None:
        super().__init__(input_size, hidden_size, layer_norm)
        # Two products with a state, at different times: each is normalised by itself.
        self.norm_hidden = nn.Identity()
        self.norm_gates = nn.LayerNorm(2 * hidden_size) if layer_norm else nn.Identity()
        self.norm_candidate = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        (hidden,) = state
        of_gates, of_candidate = torch.split(self.from_hidden.weight, [2 * self.hidden_size, self.hidden_size])
        gates_x, candidate_x = torch.split(x, [2 * self.hidden_size, self.hidden_size], dim=-1)
        reset, update = (gates_x + self.norm_gates(functional.linear(hidden, of_gates))).sigmoid().chunk(2, dim=-1)
        candidate = (candidate_x + self.norm_candidate(functional.linear(reset * hidden, of_candidate))).tanh()
        return (update * hidden + (1 - update) * candidate,)


class LSTMCell(WritingCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

        i_t, f_t, o_t = σ(W_x x_t + W_h h_{t−1} + b), each with weights of its own
        c̃_t = tanh(W_xc x_t + W_hc h_{t−1} + b_c)
        c_t = f_t ⊙ c_{t−1} + i_t ⊙ c̃_t
        h_t = o_t ⊙ tanh(c_t)

    With layer normalisation the memory is normalised where it is read: h_t = o_t ⊙ tanh(LN(c_t)) (Ba et al. 2016, eq. 22).
    """

    gates = 4
    state_parts = 2

    def __init__(self, input_size: int, hidden_size: int, layer_norm: bool = False) -> None:
        super().__init__(input_size, hidden_size, layer_norm)
        self.norm_memory: nn.Module = nn.LayerNorm(hidden_size) if layer_norm else nn.Identity()

    def write(self, x: Tensor, recurrent: Tensor, state: State, drop: Drop = unchanged) -> State:
        """See WritingCell."""
        _, memory = state
        input_gate, forget_gate, candidate, output_gate = (x + recurrent).chunk(4, dim=-1)
        memory = forget_gate.sigmoid() * memory + input_gate.sigmoid() * drop(candidate.tanh())
        return output_gate.sigmoid() * torch.tanh(self.norm_memory(memory)), memory


class Zoneout(WrappedCell):
    """Zoneout around a cell (Krueger et al. 2017): each unit of the state keeps its last value at random.

        s_t = d_t ⊙ s_{t−1} + (1 − d_t) ⊙ s̃_t,   d_t ~ Bernoulli(rate); in evaluation d_t is its mean

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        cell: makes the cell.
        hidden: rate of h.
        memory: rate of the other parts of the state (c of an LSTM).

    Raises:
        TypeError: if the layer cannot go step by step.
        ValueError: if a rate is outside [0, 1].
    """

    def __init__(
        self, input_size: int, hidden_size: int, cell: LayerFactory = LSTMCell, hidden: float = 0.05, memory: float = 0.5
    ) -> None:
        super().__init__(input_size, hidden_size, cell)
        if not (0 <= hidden <= 1 and 0 <= memory <= 1):
            raise ValueError(f"Zoneout: rates are probabilities from 0 to 1, got {hidden=}, {memory=}")
        self.rates = [hidden] + [memory] * (self.state_parts - 1)

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer."""
        inner = self.cell.stepper(like)

        def step(x: Tensor, state: State) -> State:
            new = inner(x, state)
            kept = tuple(self.keep(*parts) for parts in zip(state, new, self.rates, strict=False))
            return (*kept, *new[len(kept) :])  # inputs that a cell still needs are not zoned out

        return step

    def keep(self, old: Tensor, new: Tensor, rate: float) -> Tensor:
        """A mix of two states `(batch, hidden)` in which `rate` of the old one stays."""
        share = torch.full_like(old, rate)
        return torch.lerp(new, old.to(new.dtype), (share.bernoulli() if self.training else share).to(new.dtype))
