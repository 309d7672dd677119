"""From tokens to hidden states: an input, a stack of recurrent layers, and the dropouts between them."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from lm.dropout import LockedDropout
from lm.layers import LSTM, Bidirectional, LayerFactory, State

NetworkState = tuple[State, ...]
"""The state of a stack: that of each layer, from the input up."""


class RNNOutput(NamedTuple):
    """What a recurrent network says about a window.

    Attributes:
        hidden: of the last layer, after dropout, `(batch, time, features)`.
        raw: the same before dropout.
        state: of every layer after the last step.
        lengths: `(batch,)` true lengths where windows are padded; None where nothing is.
    """

    hidden: Tensor
    raw: Tensor
    state: NetworkState | None
    lengths: Tensor | None


class OneHot(nn.Module):
    """Tokens as one-hot vectors.

    Args:
        vocab_size: entries of the vocabulary, the width of a vector.
    """

    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, tokens: Tensor) -> Tensor:
        """`(batch, time)` ids -> `(batch, time, vocab_size)` of 0 and 1."""
        return functional.one_hot(tokens, self.vocab_size).float()


class RecurrentNetwork(nn.Module):
    """Embedding -> dropout -> (layer -> dropout) for each layer.

    Args:
        vocab_size: entries of the vocabulary.
        embedding_size: features of a token's embedding; None for one-hot input.
        layer_sizes: hidden features of each layer, from the input up.
        cell: makes each layer.
        input_dropout: rate after the embedding.
        layer_dropout: rate between layers.
        output_dropout: rate after the last layer.
        locked: one dropout mask a sequence (variational), not one a step.
        residual: add each layer's input to its output wherever the two have the same size.
        bidirectional: every layer reads in both directions; its output is twice as wide.

    Raises:
        ValueError: if there is no layer.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_size: int | None,
        layer_sizes: Sequence[int],
        cell: LayerFactory = LSTM,
        *,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked: bool = True,
        residual: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if not layer_sizes:
            raise ValueError("layer_sizes: a recurrent network needs at least one layer, for example [200, 200]")
        dropout = LockedDropout if locked else nn.Dropout
        make_layer = partial(Bidirectional, cell=cell) if bidirectional else cell
        self.embedding = OneHot(vocab_size) if embedding_size is None else nn.Embedding(vocab_size, embedding_size)
        self.input_dropout = dropout(input_dropout)
        self.layers = nn.ModuleList()
        size = embedding_size or vocab_size
        for hidden_size in layer_sizes:
            layer = make_layer(size, hidden_size)
            self.layers.append(layer)
            size = layer.output_size
        self.dropouts = nn.ModuleList([dropout(layer_dropout) for _ in layer_sizes[1:]] + [dropout(output_dropout)])
        self.residual = residual
        self.output_size = size

    def forward(self, tokens: Tensor, state: NetworkState | None = None) -> RNNOutput:
        """Tokens `(batch, time)` and the state before them (None: zeros) -> hidden states and the state after."""
        x = self.input_dropout(self.embedding(tokens))
        raw, states = x, []
        for index, (layer, dropout) in enumerate(zip(self.layers, self.dropouts, strict=True)):
            raw, after = layer(x, None if state is None else state[index])
            if self.residual and raw.shape == x.shape:
                raw = raw + x
            states.append(after)
            x = dropout(raw)
        return RNNOutput(hidden=x, raw=raw, state=tuple(states), lengths=None)
