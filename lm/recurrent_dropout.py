"""Dropout inside a recurrence: of the state that is read, and of what is written into memory."""

from collections.abc import Callable

from torch import Tensor

from lm.cells import GRUCell, LSTMCell, WritingCell
from lm.dropout import Dropout, LockedDropout
from lm.layers import State


class RecurrentDropout(WritingCell):
    """A cell whose last hidden state is dropped where gates read it, and whose candidate is dropped before it is written.

    Memory itself is never dropped, so that it may last. In evaluation nothing is.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        hidden: rate of m_h, one mask a sequence.
        candidate: rate of m_c.
        locked: one m_c a sequence; else one a step.
        layer_norm: normalise between time steps.

    Raises:
        ValueError: if a rate is no probability below 1.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        hidden: float = 0.0,
        candidate: float = 0.25,
        locked: bool = True,
        layer_norm: bool = False,
    ) -> None:
        super().__init__(input_size, hidden_size, layer_norm)
        self.drop_hidden = LockedDropout(hidden)
        self.drop_candidate = LockedDropout(candidate) if locked else Dropout(candidate)

    def stepper(self, like: Tensor) -> Callable[[Tensor, State], State]:
        """See SteppedLayer."""
        drop_hidden, drop_candidate = self.drop_hidden.held(like), self.drop_candidate.held(like)
        return lambda x, state: self.write(x, self.recur(drop_hidden(state[0])), state, drop_candidate)

    def step(self, x: Tensor, state: State) -> State:
        """See SteppedLayer: one step with masks of its own."""
        return self.stepper(state[0])(x, state)


class RecurrentDropoutLSTM(RecurrentDropout, LSTMCell):
    """The LSTM with dropout inside; arguments are those of RecurrentDropout.

    i_t, f_t, o_t, c̃_t from x_t and m_h ⊙ h_{t−1}, as in LSTMCell      (Gal & Ghahramani 2016, eq. 7)
    c_t = f_t ⊙ c_{t−1} + i_t ⊙ (m_c ⊙ c̃_t)                            (Semeniuta et al. 2016, eq. 11)
    h_t = o_t ⊙ tanh(c_t)
    """


class RecurrentDropoutGRU(RecurrentDropout, GRUCell):
    """The GRU with dropout inside; arguments are those of RecurrentDropout.

    r_t, u_t, h̃_t from x_t and m_h ⊙ h_{t−1}, as in GRUCell            (Gal & Ghahramani 2016, §4.1)
    h_t = u_t ⊙ h_{t−1} + (1 − u_t) ⊙ (m_c ⊙ h̃_t)                      (Semeniuta et al. 2016, eq. 15)
    """
