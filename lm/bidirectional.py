"""Two layers that read the same inputs, one from each end."""

import torch
from torch import Tensor

from lm.layers import GRU, LSTM, LayerFactory, RecurrentLayer, State, gru_side_by_side, steps_are_ours
from lm.lengths import reversed_in_time


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
        self.state_parts = self.ahead.state_parts

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer; the state holds the forward direction first, as torch.nn does."""
        inputs = x, reversed_in_time(x, lengths)
        if isinstance(self.ahead, GRU) and isinstance(self.back, GRU) and steps_are_ours(x):
            (ahead, back), after = gru_side_by_side([self.ahead, self.back], inputs, None if state is None else state[0], lengths)
            both: State = (after,)
        else:
            from_start = None if state is None else tuple(part[:1] for part in state)
            from_end = None if state is None else tuple(part[1:] for part in state)
            ahead, ahead_state = self.ahead(inputs[0], from_start, lengths)
            back, back_state = self.back(inputs[1], from_end, lengths)
            both = tuple(torch.cat(parts) for parts in zip(ahead_state, back_state, strict=True))
        return torch.cat([ahead, reversed_in_time(back, lengths)], dim=-1), both

    def recurrent_weights(self) -> list[Tensor]:
        """See RecurrentLayer."""
        return self.ahead.recurrent_weights() + self.back.recurrent_weights()
