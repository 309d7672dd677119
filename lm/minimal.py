"""The GRU and the LSTM with all that keeps them from a parallel scan left out."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn.functional import logsigmoid

from lm.scanned import ScannedCell


class MinGRU(ScannedCell):
    """The minimal GRU (Feng et al. 2024, §3.1).

        z_t = σ(W_z x_t + b_z)
        h̃_t = W_h x_t + b_h
        h_t = (1 − z_t) ⊙ h_{t−1} + z_t ⊙ h̃_t

    The candidate is the linear one of the paper's equations. (Its log-space code, appendix B, needs candidates above 0 and so
    squashes them; the scan here needs none.)

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
    """

    gate_writes = True

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, gates=2)

    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ScannedCell."""
        update, candidate = parts
        return update, candidate


class MinLSTM(ScannedCell):
    """The minimal LSTM, whose two gates are normalised to the sum 1 (Feng et al. 2024, §3.2).

        f_t = σ(W_f x_t + b_f),   i_t = σ(W_i x_t + b_i)
        f'_t = f_t / (f_t + i_t),   i'_t = i_t / (f_t + i_t)
        h̃_t = W_h x_t + b_h
        h_t = f'_t ⊙ h_{t−1} + i'_t ⊙ h̃_t

    The candidate is linear, as in MinGRU. The quotient is computed as σ(log f_t − log i_t), which is the same and never 0/0.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size, gates=3)

    def recurrence(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """See ScannedCell."""
        forget, write, candidate = parts
        return logsigmoid(forget) - logsigmoid(write), candidate
