"""Weights of a from-scratch cell as a fused layer, and back: the same function, so the same outputs, states and gradients."""

import torch
from torch import nn

from lm.cells import ElmanCell, GatedCell, GRUCell, LSTMCell
from lm.layers import GRU, LSTM, RNN, FusedLayer


def to_fused(cell: GatedCell) -> FusedLayer:
    """The fused layer that computes what a cell does. Where the cell has one bias, torch's second one is zero.

    Raises:
        ValueError: if torch has no such layer: other activations, layer normalisation, the reset-first GRU, zoneout.
    """
    layer: FusedLayer
    if isinstance(cell, LSTMCell):
        layer = LSTM(cell.input_size, cell.hidden_size)
    elif isinstance(cell, GRUCell):
        layer = GRU(cell.input_size, cell.hidden_size)
    elif isinstance(cell, ElmanCell) and cell.activation in ("tanh", "relu"):
        layer = RNN(cell.input_size, cell.hidden_size, nonlinearity="tanh" if cell.activation == "tanh" else "relu")
    else:
        raise ValueError(
            f"torch has no fused layer for {type(cell).__name__}: keep the cell, or train ElmanCell, GRUCell or LSTMCell"
        )
    if not isinstance(cell.norm_input, nn.Identity):
        raise ValueError(f"torch has no fused layer with layer normalisation: keep {type(cell).__name__} as it is")
    layer.to(cell.from_input.weight)  # its device and precision
    input_weight, hidden_weight, input_bias, hidden_bias = layer.rnn.all_weights[0]
    with torch.no_grad():
        input_weight.copy_(cell.from_input.weight)
        hidden_weight.copy_(cell.from_hidden.weight)
        input_bias.copy_(cell.from_input.bias)
        hidden_bias.copy_(cell.from_hidden.bias) if cell.recurrent_bias else hidden_bias.zero_()
    return layer


def from_fused(layer: FusedLayer) -> GatedCell:
    """The cell that computes what a fused layer does. Where the cell has one bias, it is the sum of torch's two."""
    rnn = layer.rnn
    cell: GatedCell
    if isinstance(rnn, nn.LSTM):
        cell = LSTMCell(layer.input_size, layer.hidden_size)
    elif isinstance(rnn, nn.GRU):
        cell = GRUCell(layer.input_size, layer.hidden_size)
    else:
        cell = ElmanCell(layer.input_size, layer.hidden_size, activation="tanh" if rnn.mode == "RNN_TANH" else "relu")
    input_weight, hidden_weight, input_bias, hidden_bias = rnn.all_weights[0]
    cell.to(input_weight)
    with torch.no_grad():
        cell.from_input.weight.copy_(input_weight)
        cell.from_hidden.weight.copy_(hidden_weight)
        cell.from_input.bias.copy_(input_bias if cell.recurrent_bias else input_bias + hidden_bias)
        if cell.recurrent_bias:
            cell.from_hidden.bias.copy_(hidden_bias)
    return cell
