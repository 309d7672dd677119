"""The bridge: from the encoder's last state to the decoder's first."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lm.layers import State
from mt.encoder import Memory


class Bridge(nn.Module, ABC):
    """Makes the decoder's first state.

    Args:
        encoder_sizes: features of the final state of each encoder layer, both directions together.
        decoder_sizes: hidden features of each decoder layer.
        parts: tensors in the state of each decoder layer, two for an LSTM.
    """

    def __init__(self, encoder_sizes: Sequence[int], decoder_sizes: Sequence[int], parts: Sequence[int]) -> None:
        super().__init__()
        self.encoder_sizes, self.decoder_sizes, self.parts = list(encoder_sizes), list(decoder_sizes), list(parts)

    @abstractmethod
    def forward(self, memory: Memory) -> tuple[State, ...]:
        """The state of each decoder layer, tensors `(batch, hidden)`."""

    def final(self, memory: Memory, layer: int) -> list[Tensor]:
        """The final state `(batch, features)` of the encoder layer that a decoder layer goes by, or of the last there is."""
        state = memory.final[min(layer, len(memory.final) - 1)]
        return [part.transpose(0, 1).flatten(1) for part in state]


class CopyBridge(Bridge):
    """Each decoder layer begins where the encoder layer ended, its directions side by side.

    Raises:
        ValueError: if a size, or the number of layers or of parts of a state, differs.
    """

    def __init__(self, encoder_sizes: Sequence[int], decoder_sizes: Sequence[int], parts: Sequence[int]) -> None:
        super().__init__(encoder_sizes, decoder_sizes, parts)
        if self.encoder_sizes != self.decoder_sizes:
            raise ValueError(
                f"CopyBridge: a decoder with layers of {self.decoder_sizes} features cannot begin with states of"
                f" {self.encoder_sizes}: make them equal (both directions count), or use LearnedBridge"
            )

    def forward(self, memory: Memory) -> tuple[State, ...]:
        """See Bridge."""
        states = tuple(tuple(self.final(memory, layer)) for layer in range(len(self.decoder_sizes)))
        if [len(state) for state in states] != self.parts:
            raise ValueError("CopyBridge: encoder and decoder have different cells: give both the same, or use LearnedBridge")
        return states


class DirectionBridge(Bridge):
    """Each direction of an encoder layer begins a decoder layer: forward the first, backward the second, and so on.

    So has it tensorflow/nmt, whose decoder has twice the layers of a bidirectional encoder.

    Raises:
        ValueError: if a size, or the number of layers or of parts of a state, does not fit.
    """

    def __init__(self, encoder_sizes: Sequence[int], decoder_sizes: Sequence[int], parts: Sequence[int]) -> None:
        super().__init__(encoder_sizes, decoder_sizes, parts)
        if [size for both in self.encoder_sizes for size in (both // 2, both - both // 2)] != self.decoder_sizes:
            raise ValueError(
                f"DirectionBridge: a decoder with layers of {self.decoder_sizes} features cannot begin with the two directions of"
                f" encoder layers of {self.encoder_sizes}: give it two layers for each, half as wide, or use LearnedBridge"
            )

    def forward(self, memory: Memory) -> tuple[State, ...]:
        """See Bridge."""
        states = tuple(tuple(part[direction] for part in state) for state in memory.final for direction in range(len(state[0])))
        if [len(state) for state in states] != self.parts:
            raise ValueError(
                "DirectionBridge: the encoder reads in one direction, or its cells are not the decoder's: make it bidirectional"
                " and give both the same cell, or use LearnedBridge"
            )
        return states


class LearnedBridge(Bridge):
    """tanh(W s + b), its own W for each layer and, of an LSTM, for h and for c (Bahdanau et al. 2015, appendix A.2.2).

    Where the encoder's cell has no memory c, the decoder's is made of h.
    """

    def __init__(self, encoder_sizes: Sequence[int], decoder_sizes: Sequence[int], parts: Sequence[int]) -> None:
        super().__init__(encoder_sizes, decoder_sizes, parts)
        last = len(self.encoder_sizes) - 1
        self.maps = nn.ModuleList(
            nn.Linear(self.encoder_sizes[min(layer, last)], size)
            for layer, (size, count) in enumerate(zip(self.decoder_sizes, self.parts, strict=True))
            for _ in range(count)
        )

    def forward(self, memory: Memory) -> tuple[State, ...]:
        """See Bridge."""
        maps = iter(self.maps)
        states = []
        for layer, count in enumerate(self.parts):
            final = self.final(memory, layer)
            states.append(tuple(torch.tanh(next(maps)(final[min(part, len(final) - 1)])) for part in range(count)))
        return tuple(states)


class ZeroBridge(Bridge):
    """Zeros: what the decoder knows of the source it has to look up."""

    def forward(self, memory: Memory) -> tuple[State, ...]:
        """See Bridge."""
        zeros = memory.states.new_zeros
        return tuple(
            tuple(zeros(len(memory.states), size) for _ in range(count))
            for size, count in zip(self.decoder_sizes, self.parts, strict=True)
        )


BridgeFactory = Callable[[Sequence[int], Sequence[int], Sequence[int]], Bridge]
"""Makes a bridge from encoder sizes, decoder sizes and parts of a state."""
