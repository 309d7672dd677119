"""The quasi-recurrent network: gates by a convolution over time, and a pooling that remembers."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lm.dropout import Dropout
from lm.layers import State
from lm.lengths import last
from lm.scanned import ScannedCell, gate_products


class QRNN(ScannedCell):
    """The quasi-recurrent network (Bradbury et al. 2017, eq. 1 to 5), with a window of one or two inputs.

        z_t = tanh(W¹_z x_{t−1} + W²_z x_t + b_z)
        f_t, o_t, i_t = σ(W¹ x_{t−1} + W² x_t + b), each with weights of its own
        f-pooling:    h_t = f_t ⊙ h_{t−1} + (1 − f_t) ⊙ z_t
        fo-pooling:   c_t = f_t ⊙ c_{t−1} + (1 − f_t) ⊙ z_t,   h_t = o_t ⊙ c_t
        ifo-pooling:  c_t = f_t ⊙ c_{t−1} + i_t ⊙ z_t,         h_t = o_t ⊙ c_t

    With a window of 1 there is no W¹; with 2 the state has one more part, x_{t−1} `(1, batch, input)`, behind h and c.
    Zoneout is f = 1 − dropout(1 − f) without the dropout's scaling (§2.1): a unit keeps its memory at random, and in evaluation
    1 − f is multiplied by the share of steps that it was not kept in, as the authors' code does. Under ifo-pooling what is
    kept still gets i ⊙ z, as the equations have it.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        window: inputs that gates look at, 1 or 2.
        pooling: the gates there are.
        zoneout: rate.

    Raises:
        ValueError: if the window is another, the pooling none of these, or the rate no probability below 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        window: Literal[1, 2] = 1,
        pooling: Literal["f", "fo", "ifo"] = "fo",
        zoneout: float = 0.0,
    ) -> None:
        if window not in (1, 2):
            raise ValueError(f"QRNN: a window is of 1 or 2 inputs, got {window}; stack layers to see farther at once")
        if pooling not in ("f", "fo", "ifo"):
            raise ValueError(f"QRNN: pooling is f, fo or ifo, got {pooling!r}")
        if not 0 <= zoneout < 1:
            raise ValueError(f"QRNN: zoneout is a probability below 1, got {zoneout}")
        super().__init__(input_size, hidden_size, gates=1 + len(pooling), with_input=window == 2)
        self.state_parts = 1 if pooling == "f" else 2
        self.from_previous = nn.Linear(input_size, self.gates * hidden_size, bias=False) if window == 2 else None
        self.pooling = pooling
        self.leaky = pooling != "ifo" and zoneout == 0
        self.zoneout = Dropout(zoneout)

    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ScannedCell."""
        candidate, forget, *others = parts
        candidate = candidate.tanh()
        if self.leaky:
            return forget, candidate
        update = forget.neg().sigmoid()
        if self.zoneout.rate:
            update = self.zoneout(update) * (1 - self.zoneout.rate)
        return 1 - update, candidate * (others[1].sigmoid() if self.pooling == "ifo" else update)

    def said(self, parts: Sequence[Tensor], memory: Tensor) -> Tensor:
        """See ScannedCell."""
        return parts[2].sigmoid() * memory

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        previous = () if self.from_previous is None else (x.new_zeros(x.shape[0], self.input_size),)
        return (*super().first_state(x), *previous)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        if self.from_previous is None:
            return super().step(x, state)
        product, x = torch.split(x, [self.gates * self.hidden_size, self.input_size], dim=-1)
        return (*super().step(product + self.from_previous(state[-1].to(x.dtype)), state), x)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        if self.from_previous is None:
            return super().forward(x, state, lengths)
        before = torch.zeros_like(x[:, 0]) if state is None else state[-1][0].to(x.dtype)
        window = torch.cat([x, torch.cat([before[:, None], x[:, :-1]], dim=1)], dim=-1)
        weight = torch.cat([self.from_input.weight, self.from_previous.weight], dim=1)  # one product is faster than two
        y, after = self.scan(gate_products(window, weight, self.from_input.bias, self.gates), state, lengths)
        return y, (*after, last(x, lengths).unsqueeze(0))
