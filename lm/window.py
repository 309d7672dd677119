"""The fixed-window neural model: no recurrence, the last few words side by side."""

import torch
from torch import Tensor, nn

from lm.layers import State, SteppedLayer


class FixedWindow(SteppedLayer):
    """A perceptron over the concatenated embeddings of the last words (Bengio et al. 2003, eq. 1), behind which stands a softmax.

        h_t = tanh(H [x_{t−n+1}; ...; x_t] + d)
        y_t = [h_t; x_{t−n+1}; ...; x_t] with direct connections, else h_t

    A linear head over y_t is the paper's U h + W x + b. The layer takes the place of a recurrent one, so that the rest of a model
    stays as it is: its state is the inputs that the next window still holds, `(1, batch, (n − 1)·input)` behind y_t, and before a
    text they are zeros.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        words: n, how many words the window holds.
        direct: connect the words with the output directly too.

    Raises:
        ValueError: if a window holds no word.
    """

    def __init__(self, input_size: int, hidden_size: int, words: int = 4, direct: bool = False) -> None:
        super().__init__(input_size, hidden_size)
        if words < 1:
            raise ValueError(f"FixedWindow: a window holds at least 1 word, got {words}")
        self.words = words
        self.direct = direct
        self.output_size = hidden_size + (words * input_size if direct else 0)
        self.hidden = nn.Linear(words * input_size, hidden_size)

    def forward(self, x: Tensor, state: State | None = None, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """See RecurrentLayer."""
        before = x.new_zeros(x.shape[0], self.remembered) if state is None else state[1][0].to(x.dtype)
        inputs = torch.cat([before.view(x.shape[0], self.words - 1, self.input_size), x], dim=1)
        said = self.say(inputs.unfold(1, self.words, 1).transpose(2, 3).flatten(2))
        ends = torch.full_like(x[:, 0, 0], x.shape[1], dtype=torch.long) if lengths is None else lengths.to(x.device)
        if lengths is not None:
            said = said * (torch.arange(x.shape[1], device=x.device) < ends[:, None])[..., None]
        rows = torch.arange(len(x), device=x.device)
        last = inputs[rows[:, None], ends[:, None] + torch.arange(self.words - 1, device=x.device)]
        return said, (said[rows, ends - 1].unsqueeze(0), last.flatten(1).unsqueeze(0))

    @property
    def remembered(self) -> int:
        """Features of the inputs that the next window still holds."""
        return (self.words - 1) * self.input_size

    def say(self, window: Tensor) -> Tensor:
        """Windows `(..., n·input)` -> y `(..., output)`."""
        hidden = self.hidden(window).tanh()
        return torch.cat([hidden, window], dim=-1) if self.direct else hidden

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        return x.new_zeros(x.shape[0], self.output_size), x.new_zeros(x.shape[0], self.remembered)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        window = torch.cat([state[1].to(x.dtype), x], dim=-1)
        return self.say(window), window[:, self.input_size :]
