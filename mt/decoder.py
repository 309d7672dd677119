"""What every decoder is: from a target sentence so far, and the memory of its source, to what the head reads."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from torch import Tensor, nn

from lm.layers import GRU, State, SteppedLayer
from lm.network import NetworkFactory, RecurrentNetwork
from mt.bridge import BridgeFactory
from mt.encoder import Memory

ONE_GRU: NetworkFactory = partial(RecurrentNetwork, cell=GRU)


class Source(NamedTuple):
    """A batch of source sentences as a decoder looks at them.

    The rows of a search find their sentence by row // hypotheses; nothing here is ever copied or reordered.

    Attributes:
        memory: of the encoder.
        keys: what attention needs of its states, `(sentences, source_time, features)`; or a context `(sentences, features)`.
    """

    memory: Memory
    keys: Tensor


class DecoderState(NamedTuple):
    """What a decoder remembers of each row; every tensor has rows first.

    Attributes:
        layers: of each layer, tensors `(rows, hidden)`.
        said: what the head read last, `(rows, features)`, where it is fed back.
        coverage: Σ of the attention so far, `(rows, source_time)`, where a score reads it.
    """

    layers: tuple[State, ...]
    said: Tensor | None = None
    coverage: Tensor | None = None


class DecoderOutput(NamedTuple):
    """What a decoder says.

    Attributes:
        hidden: what the head reads, `(rows, time, features)`.
        raw: of the last recurrent layer, before its dropout, `(rows, time, hidden)`.
        attention: `(rows, time, source_time)`; None for a decoder that does not look back.
        state: after the last step.
    """

    hidden: Tensor
    raw: Tensor
    attention: Tensor | None
    state: DecoderState


NextInput = Callable[[int, Tensor], Tensor]
"""The input tokens `(rows,)` of a step, from its number and what was said in the step before, `(rows, features)`."""


class Decoder(nn.Module, ABC):
    """A recurrent network over the target, begun from the source.

    Args:
        network: over embeddings and what stands beside them.
        state_sizes: features of the final state of each encoder layer.
        bridge: makes the first state of all layers.
        upper: a network above that one; None for none.

    Attributes:
        output_size: features of what the head reads.

    Raises:
        TypeError: if a layer cannot go step by step.
    """

    output_size: int

    def __init__(
        self, network: RecurrentNetwork, state_sizes: Sequence[int], bridge: BridgeFactory, upper: RecurrentNetwork | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.upper = upper
        layers = self.layers()
        self.first = layers[0]
        self.bridge = bridge(state_sizes, [layer.hidden_size for layer in layers], [layer.state_parts for layer in layers])

    def layers(self) -> list[SteppedLayer]:
        """All recurrent layers, from the input up."""
        layers = [*self.network.layers, *([] if self.upper is None else self.upper.layers)]
        stepped = [layer for layer in layers if isinstance(layer, SteppedLayer)]
        if len(stepped) < len(layers):
            names = ", ".join(type(layer).__name__ for layer in layers)
            raise TypeError(f"decoder: it writes word by word, and {names} cannot: use one direction, and cells that have steps")
        return stepped

    def begin(self, memory: Memory) -> tuple[State, ...]:
        """The first state of each layer: what the bridge makes, and no input before the first, where a layer keeps one."""
        zeros = [layer.first_state(memory.states) for layer in self.layers()]
        return tuple((*made, *parts[len(made) :]) for made, parts in zip(self.bridge(memory), zeros, strict=True))

    @abstractmethod
    def look(self, memory: Memory) -> Source:
        """What of the source needs computing only once."""

    @abstractmethod
    def start(self, source: Source) -> DecoderState:
        """The state before the first token, a row a sentence."""

    @abstractmethod
    def forward(self, tokens: Tensor, source: Source, state: DecoderState, next_input: NextInput | None = None) -> DecoderOutput:
        """Read input tokens `(rows, time)`, one row or several for each sentence, after the state before them.

        Without `next_input`, which is teacher forcing, steps run together wherever the equations allow it. With it, the tokens
        of all steps but the first come from there (scheduled sampling, Bengio et al. 2015).
        """


def layers_first(state: tuple[State, ...]) -> tuple[State, ...]:
    """Tensors `(rows, hidden)` as layers take them, `(1, rows, hidden)`."""
    return tuple(tuple(part.unsqueeze(0) for part in layer) for layer in state)


def rows_first(state: tuple[State, ...] | None) -> tuple[State, ...]:
    """The reverse."""
    return tuple(tuple(part.squeeze(0) for part in layer) for layer in state or ())
