"""The fixed-window neural model: no recurrence, the last few words side by side."""

import torch
from torch import Tensor, nn

from lm.layers import State, SteppedLayer
from lm.lengths import last


class FixedWindow(SteppedLayer):
    """A perceptron over the concatenated embeddings of the last words (Bengio et al. 2003, eq. 1), behind which stands a softmax.

        h_t = tanh(H [x_{t−n+1}; ...; x_t] + d)
        y_t = [h_t; x_{t−n+1}; ...; x_t] with direct connections, else h_t

    A linear head over y_t is the paper's U h + W x + b. The layer takes the place of a recurrent one, so that the rest of a model
    stays as it is: its state is the n − 1 inputs that the next window still holds, `(1, batch, input)` each, behind y_t. Before a
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
        _, *before = self.first_state(x[:, 0]) if state is None else [part[0] for part in state]
        inputs = torch.cat([part[:, None].to(x.dtype) for part in before] + [x], dim=1)
        said = self.say(inputs.unfold(1, self.words, 1).transpose(2, 3).flatten(2))
        if lengths is not None:
            read = torch.arange(x.shape[1], device=x.device) < lengths.to(x.device)[:, None]
            said = said * read[..., None]
        after = (last(inputs[:, i : i + x.shape[1]], lengths) for i in range(1, self.words))
        return said, tuple(part.unsqueeze(0) for part in (last(said, lengths), *after))

    def say(self, window: Tensor) -> Tensor:
        """Windows `(..., n·input)` -> y `(..., output)`."""
        hidden = self.hidden(window).tanh()
        return torch.cat([hidden, window], dim=-1) if self.direct else hidden

    def first_state(self, x: Tensor) -> State:
        """See SteppedLayer."""
        return x.new_zeros(x.shape[0], self.output_size), *(x.new_zeros(x.shape[0], self.input_size),) * (self.words - 1)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer."""
        window = (*(part.to(x.dtype) for part in state[1:]), x)
        return self.say(torch.cat(window, dim=-1)), *window[1:]
