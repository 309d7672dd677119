"""A decoder that knows its source as one vector."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from lm.network import NetworkFactory
from mt.bridge import BridgeFactory, LearnedBridge
from mt.decoder import ONE_GRU, Decoder, DecoderOutput, DecoderState, NextInput, Source, layers_first, rows_first
from mt.encoder import Memory


class ContextDecoder(Decoder):
    """The source as one vector c beside every input (Cho et al. 2014, eq. 3 and 4, with the state alone to predict from).

        c = q(h_1, ..., h_T),   s_t = RNN([e(y_{t−1}); c], s_{t−1})

    Args:
        vocab_size: entries of the target vocabulary.
        memory_size: features of the encoder's states.
        state_sizes: features of the final state of each encoder layer.
        network: makes the recurrent network.
        bridge: makes its first state.
        context: q: the last layer's final state, or the mean or the maximum of all states.
    """

    def __init__(
        self,
        vocab_size: int,
        memory_size: int,
        state_sizes: Sequence[int],
        network: NetworkFactory = ONE_GRU,
        bridge: BridgeFactory = LearnedBridge,
        context: Literal["final", "mean", "max"] = "final",
    ) -> None:
        super().__init__(network(vocab_size, memory_size), state_sizes, bridge)
        self.context = context
        self.output_size = self.network.output_size

    def look(self, memory: Memory) -> Source:
        """See Decoder: the context."""
        if self.context == "final":
            return Source(memory, memory.final[-1][0].transpose(0, 1).flatten(1))
        mask = memory.mask[:, :, None]
        if self.context == "max":
            return Source(memory, memory.states.masked_fill(~mask, torch.finfo(memory.states.dtype).min).amax(dim=1))
        return Source(memory, (memory.states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1))

    def start(self, source: Source) -> DecoderState:
        """See Decoder."""
        return DecoderState(self.begin(source.memory))

    def forward(self, tokens: Tensor, source: Source, state: DecoderState, next_input: NextInput | None = None) -> DecoderOutput:
        """See Decoder."""
        context = source.keys.repeat_interleave(len(tokens) // len(source.keys), dim=0)
        if next_input is None:
            embedded = self.network.embed(tokens)
            beside = context[:, None].expand(-1, tokens.shape[1], -1).to(embedded.dtype)
            output = self.network.read(torch.cat([embedded, beside], dim=-1), layers_first(state.layers))
            return DecoderOutput(output.hidden, output.raw, None, DecoderState(rows_first(output.state)))
        steps, layers = self.network.steps(len(tokens)), state.layers
        said: list[Tensor] = []
        raws: list[Tensor] = []
        for time in range(tokens.shape[1]):
            x = torch.cat([steps.embed(next_input(time, said[-1]) if time else tokens[:, 0]), context], dim=-1)
            raw, layers = steps.layers(self.first.project(x), x, layers)
            raws.append(raw)
            said.append(steps.drop(raw))
        return DecoderOutput(torch.stack(said, dim=1), torch.stack(raws, dim=1), None, DecoderState(layers))
