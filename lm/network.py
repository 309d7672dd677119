"""From tokens to hidden states: an input, a stack of recurrent layers, and the dropouts between them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn
from torch.nn import functional

from datamodules.tokenizers import Tokenizer
from lm.bidirectional import Bidirectional
from lm.dropout import Dropout, LockedDropout
from lm.layers import LSTM, LayerFactory, State, SteppedLayer

NetworkState = tuple[State, ...]
"""The state of a stack: that of each layer, from the input up."""

EmbeddingFactory = Callable[[int, int], nn.Module]
"""Makes, from the vocabulary's size and that of an embedding, a module that maps ids `(...)` to `(..., embedding_size)`."""


LayerFactories = Sequence[LayerFactory] | LayerFactory
"""One for each layer, or one for all. Of the two, jsonargparse writes a list down by the one that comes first."""


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


class SpelledEmbedding(nn.Module, ABC):
    """An embedding of words that has to know how they are spelled, which a tokenizer does."""

    @abstractmethod
    def learn_spellings(self, tokenizer: Tokenizer) -> None:
        """Take the words of the vocabulary, by their ids; called before training, and before weights are restored."""


class RecurrentNetwork(nn.Module):
    """Embedding -> dropout -> (layer -> dropout) for each layer.

    Args:
        vocab_size: entries of the vocabulary.
        extra_size: features that stand beside each embedding in the input of the first layer, given by the caller of `read`.
        embedding_size: features of a token's embedding; None for one-hot input.
        embedding: makes the embedding; None for a table.
        layer_sizes: hidden features of each layer, from the input up.
        cell: makes each layer; or several, each of which makes its own, from the input up.
        embedding_dropout: rate of whole words: in a forward pass every occurrence of one is zeroed, or none (Gal & Ghahramani
            2016, §4.2; Merity et al. 2017, §4.3).
        input_dropout: rate of the embeddings' features.
        layer_dropout: rate between layers.
        output_dropout: rate after the last layer.
        locked_dropout: one mask a sequence (variational dropout), not one a step.
        residual: add each layer's input to its output wherever the two have the same size.
        bidirectional: every layer reads in both directions; its output is twice as wide.

    Raises:
        ValueError: if there is no layer, or cells are not as many, or one-hot input is given an embedding.
    """

    def __init__(
        self,
        vocab_size: int,
        extra_size: int = 0,
        *,
        embedding_size: int | None = 256,
        embedding: EmbeddingFactory | None = None,
        layer_sizes: Sequence[int] = (256,),
        cell: LayerFactories = LSTM,
        embedding_dropout: float = 0.0,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        output_dropout: float = 0.0,
        locked_dropout: bool = True,
        residual: bool = False,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        if not layer_sizes:
            raise ValueError("layer_sizes: a recurrent network needs at least one layer, for example [200, 200]")
        if embedding_size is None and embedding is not None:
            raise ValueError("embedding: one-hot input has none; give embedding_size the number of its features")
        dropout = LockedDropout if locked_dropout else Dropout
        cells = [cell] * len(layer_sizes) if callable(cell) else list(cell)
        if len(cells) != len(layer_sizes):
            raise ValueError(f"cell: {len(cells)} cells cannot make {len(layer_sizes)} layers; give one for all, or each its own")
        make_embedding = embedding or nn.Embedding
        self.embedding = OneHot(vocab_size) if embedding_size is None else make_embedding(vocab_size, embedding_size)
        self.vocab_size = vocab_size
        self.embedding_dropout = Dropout(embedding_dropout)
        self.input_dropout = dropout(input_dropout)
        self.layers = nn.ModuleList()
        self.embedding_size = embedding_size or vocab_size
        size = self.embedding_size + extra_size
        for hidden_size, make in zip(layer_sizes, cells, strict=True):
            layer = Bidirectional(size, hidden_size, make) if bidirectional else make(size, hidden_size)
            self.layers.append(layer)
            size = layer.output_size
        self.dropouts = nn.ModuleList([dropout(layer_dropout) for _ in layer_sizes[1:]] + [dropout(output_dropout)])
        self.residual = residual
        self.output_size = size

    def forward(self, tokens: Tensor, state: NetworkState | None = None, lengths: Tensor | None = None) -> RNNOutput:
        """Tokens `(batch, time)` and the state before them (None: zeros) -> hidden states and the state after.

        With `lengths` `(batch,)`, what stands behind them reaches neither a hidden state before them nor the state after.
        """
        return self.read(self.embed(tokens), state, lengths)

    def learn_spellings(self, tokenizer: Tokenizer | None) -> None:
        """Show the words of the vocabulary to an embedding that reads their characters."""
        if tokenizer is not None and isinstance(self.embedding, SpelledEmbedding):
            self.embedding.learn_spellings(tokenizer)

    def embed(self, tokens: Tensor) -> Tensor:
        """Tokens `(batch, time)` -> `(batch, time, embedding_size)` after dropout."""
        embedded: Tensor = self.input_dropout(self.drop_words()(tokens))
        return embedded

    def drop_words(self) -> Callable[[Tensor], Tensor]:
        """The embedding of this forward pass, without the words that are dropped in it."""
        embedding: Callable[[Tensor], Tensor] = self.embedding
        if not self.embedding_dropout.active:
            return embedding
        kept = self.embedding_dropout(next(self.layers.parameters()).new_ones(self.vocab_size, 1))
        return lambda tokens: embedding(tokens) * kept[tokens]

    def read(self, x: Tensor, state: NetworkState | None = None, lengths: Tensor | None = None) -> RNNOutput:
        """As `forward`, from inputs of the first layer, `(batch, time, embedding_size + extra_size)`."""
        raw, states = x, []
        for index, (layer, dropout) in enumerate(zip(self.layers, self.dropouts, strict=True)):
            raw, after = layer(x, None if state is None else state[index], lengths)
            if self.residual and raw.shape == x.shape:
                raw = raw + x
            states.append(after)
            x = dropout(raw)
        return RNNOutput(hidden=x, raw=raw, state=tuple(states), lengths=lengths)

    def steps(self, rows: int) -> "Steps":
        """The network one step at a time, for one whose next input depends on what it said last; its layers have steps."""
        layers = [layer for layer in self.layers if isinstance(layer, SteppedLayer)]
        like = next(self.layers.parameters())
        embedding = self.drop_words()
        drop_input = self.input_dropout.held(like.new_empty(rows, self.embedding_size))
        dropouts = [dropout for dropout in self.dropouts if isinstance(dropout, Dropout)]
        steppers = [layer.stepper(like.new_empty(rows, layer.hidden_size)) for layer in layers]
        drops = [dropout.held(like.new_empty(rows, layer.output_size)) for dropout, layer in zip(dropouts, layers, strict=True)]

        def step(projected: Tensor, x: Tensor, state: NetworkState) -> tuple[Tensor, NetworkState]:
            raw, states = x, []
            for index, layer in enumerate(layers):
                if index:
                    x = drops[index - 1](raw)
                    projected = layer.project(x)
                after = steppers[index](projected, state[index])
                raw = after[0] + x if self.residual and after[0].shape == x.shape else after[0]
                states.append(after)
            return raw, tuple(states)

        return Steps(lambda tokens: drop_input(embedding(tokens)), step, drops[-1])


class Steps(NamedTuple):
    """A network in single steps; each locked dropout keeps its mask from step to step.

    Attributes:
        embed: tokens `(rows,)` -> `(rows, embedding_size)`.
        layers: what the first layer's `project` or `project_ahead` made of its input, that input `(rows, features)`, and the
            states before, tensors `(rows, hidden)` -> the last layer's `(rows, features)` before dropout, and the states after.
        drop: the last dropout.
    """

    embed: Callable[[Tensor], Tensor]
    layers: Callable[[Tensor, Tensor, NetworkState], tuple[Tensor, NetworkState]]
    drop: Callable[[Tensor], Tensor]


NetworkFactory = Callable[[int, int], RecurrentNetwork]
"""Makes a network from the sizes of the vocabulary and of the extra features: a partial of RecurrentNetwork."""
