"""Cells with batch normalisation between time steps."""

from torch import Tensor, nn

from lm.cells import Activation, ElmanCell, LSTMCell

MOMENTUM = 0.01
"""How far the statistics for evaluation move at every step; torch's 0.1 would leave them to the last dozen steps of a window."""


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of features over all that stands before them, rows alone or rows and steps.

    Args:
        size: features.
        scale: of the normalised features at the start; small, for the gradient of a tanh far from zero vanishes (Cooijmans et al.
            2016, §4).
    """

    def __init__(self, size: int, scale: float = 0.1) -> None:
        super().__init__(size, momentum=MOMENTUM)
        nn.init.constant_(self.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        """`(..., size)` -> the same shape.

        Raises:
            ValueError: if there is a single row to normalise over in training.
        """
        rows = x.flatten(0, -2)
        if self.training and len(rows) == 1:
            raise ValueError("BatchNorm: a batch of 1 row has no variance: give the data more lanes, or normalise layers instead")
        normalised: Tensor = super().forward(rows).view_as(x)
        return normalised


class BatchNormElmanCell(ElmanCell):
    """The simple recurrent network with both products normalised over the batch.

        h_t = Φ(BN(W_xh x_t) + BN(W_hh h_{t−1}))

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        activation: Φ.
        scale: of normalised products at the start.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        activation: Activation = "tanh",
        scale: float = 0.1,
    ) -> None:
        super().__init__(input_size, hidden_size, activation, layer_norm=True)
        self.norm_input = BatchNorm(hidden_size, scale)
        self.norm_hidden = BatchNorm(hidden_size, scale)


class BatchNormLSTMCell(LSTMCell):
    """The LSTM with its products and its memory normalised over the batch (Cooijmans et al. 2016, eq. 6 to 8).

        i_t, f_t, o_t, c̃_t from BN(W_x x_t) + BN(W_h h_{t−1}), as in LSTMCell
        h_t = o_t ⊙ tanh(BN(c_t))

    The paper keeps statistics for evaluation apart for each step; here all steps share them, so that windows may have any length.

    Args:
        input_size: features of x_t.
        hidden_size: features of h_t.
        scale: of what is normalised at the start.
    """

    def __init__(self, input_size: int, hidden_size: int, scale: float = 0.1) -> None:
        super().__init__(input_size, hidden_size, layer_norm=True)
        self.norm_input = BatchNorm(self.gates * hidden_size, scale)
        self.norm_hidden = BatchNorm(self.gates * hidden_size, scale)
        self.norm_memory = BatchNorm(hidden_size, scale)
