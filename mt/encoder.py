"""The encoder: a source sentence as what a decoder can look at."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lm.layers import RecurrentLayer
from lm.network import NetworkFactory, NetworkState


class Memory(NamedTuple):
    """What is kept of a batch of source sentences.

    Attributes:
        states: of the encoder's last layer, `(batch, source_time, features)`.
        mask: `(batch, source_time)`, true where there is a token and not padding.
        final: the state of every layer after its last token, without inputs that the layer keeps in it; of a backward
            direction, after the first one.
    """

    states: Tensor
    mask: Tensor
    final: NetworkState


class Encoder(nn.Module):
    """A recurrent network over the source, in one direction or both.

    Args:
        vocab_size: entries of the source vocabulary.
        network: makes the network.

    Attributes:
        output_size: features of a state in the memory.
        state_sizes: features of the final state of each layer, both directions together.
        state_parts: tensors in the final state of each layer.
    """

    def __init__(self, vocab_size: int, network: NetworkFactory) -> None:
        super().__init__()
        self.network = network(vocab_size, 0)
        self.output_size = self.network.output_size
        layers = [layer for layer in self.network.layers if isinstance(layer, RecurrentLayer)]
        self.state_sizes = [layer.output_size for layer in layers]
        self.state_parts = [layer.state_parts for layer in layers]

    def forward(self, tokens: Tensor, lengths: Tensor) -> Memory:
        """Tokens `(batch, source_time)` and their lengths `(batch,)` -> what the decoder sees of them."""
        output = self.network(tokens, lengths=lengths)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        final = tuple(state[:parts] for state, parts in zip(output.state, self.state_parts, strict=True))
        return Memory(output.hidden, mask, final)
