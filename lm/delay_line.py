"""A layer that remembers its last inputs and nothing else."""

import torch
from torch import Tensor

from lm.layers import RecurrentLayer, State


class DelayLine(RecurrentLayer):
    """A tapped delay line (Waibel et al. 1989): what it says is a window of its last τ inputs, zeros before the first.

        h_t = (x_{t−τ+1}, ..., x_t),   τ = hidden / input

    It has no weights. A linear layer on it is linear autoregression of order τ, a perceptron on it the neural one, and both
    carry a state, sample and forecast as every recurrent layer does.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t, τ times as many.

    Raises:
        ValueError: if h_t does not hold a whole number of inputs.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        if hidden_size < input_size or hidden_size % input_size:
            raise ValueError(
                f"DelayLine: {hidden_size} features are no whole number of inputs of {input_size}: give the layer a multiple of"
                f" {input_size}"
            )
        self.order = hidden_size // input_size

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        rows, time, _ = x.shape
        before = x.new_zeros(rows, self.hidden_size) if state is None else state[0][0].to(x.dtype)
        # The oldest input leaves as the first one comes.
        line = torch.cat([before.view(rows, self.order, self.input_size)[:, 1:], x], dim=1)
        said = line.unfold(1, self.order, 1).transpose(2, 3).reshape(rows, time, self.hidden_size)
        if lengths is None:
            return said, (said[:, -1][None],)
        read = lengths.to(x.device).clamp(min=1)
        last = said[torch.arange(rows, device=x.device), read - 1]
        return said * (torch.arange(time, device=x.device) < read[:, None])[..., None], (last[None],)
