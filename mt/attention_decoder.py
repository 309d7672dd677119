"""A decoder that looks at its source at every step."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from lm.dropout import Dropout
from lm.layers import State
from lm.network import NetworkFactory, RNNOutput, Steps
from lm.step_linear import StepLinear, gathered
from mt.attention import AdditiveAttention, Attended, AttentionFactory
from mt.bridge import BridgeFactory, LearnedBridge
from mt.decoder import ONE_GRU, Decoder, DecoderOutput, DecoderState, NextInput, Source, layers_first, rows_first
from mt.encoder import Memory

WordAt = Callable[[int, Sequence[Tensor]], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""From the number of a step and what was said before it: its word `(rows, embedding_size)`, and what makes of the features beside
that word, `(rows, rest)`, the projected input of the first layer."""


class AttentionDecoder(Decoder):
    """A decoder that looks at the source at every step.

    After its RNN (Luong et al. 2015, §3): a look from s_t, which only the prediction uses. Before it (Bahdanau et al. 2015,
    §3.1): a look from s_{t−1}, which is an input. With input feeding (Luong et al. 2015, §3.3) the last s̃ is an input too.

        c_t = attention(s_t or s_{t−1}),   s_t = RNN([e(y_{t−1}); s̃_{t−1}; c_t], s_{t−1}),   s̃_t = tanh(W [s_t; c_t])

    Looking after the RNN without input feeding, all steps of teacher forcing run at once. They still do with a network above the
    attention (Wu et al. 2016, §3.1), which, as input feeding does, remembers where was looked before:

        u_t = RNN'([s_t; c_t], u_{t−1}),   s̃_t = tanh(W [u_t; c_t])

    Args:
        vocab_size: entries of the target vocabulary.
        memory_size: features of the encoder's states.
        state_sizes: features of the final state of each encoder layer.
        network: makes the recurrent network.
        bridge: makes the first state of all layers.
        attention: makes the attention.
        look: when to look.
        input_feeding: feed s̃ back.
        output_size: features of s̃; None for those of s. A head that shares the embedding's weights needs its size.
        joint_dropout: rate of [s; c].
        output_dropout: rate of s̃ where the head reads it.
        upper: makes the network above the attention, which reads no words and so has `embedding_size` None; None for none.

    Raises:
        ValueError: if the network above has an embedding.
    """

    def __init__(
        self,
        vocab_size: int,
        memory_size: int,
        state_sizes: Sequence[int],
        network: NetworkFactory = ONE_GRU,
        bridge: BridgeFactory = LearnedBridge,
        attention: AttentionFactory = AdditiveAttention,
        look: Literal["before", "after"] = "after",
        input_feeding: bool = False,
        output_size: int | None = None,
        joint_dropout: float = 0.0,
        output_dropout: float = 0.0,
        upper: NetworkFactory | None = None,
    ) -> None:
        with torch.device("meta"):  # whatever is fed to a network, its output has the size that it has without
            size = network(1, 0).output_size
        above = None if upper is None else upper(0, size + memory_size)
        if above is not None and above.embedding_size:
            raise ValueError("decoder: the network above its attention reads no words: give it embedding_size null")
        top_size = size if above is None else above.output_size
        said_size = output_size or top_size
        self.sizes = [said_size] * input_feeding + [memory_size] * (look == "before")
        super().__init__(network(vocab_size, sum(self.sizes)), state_sizes, bridge, above)
        self.attention = attention(size, memory_size)
        self.look_before = look == "before"
        self.input_feeding = input_feeding
        self.join = StepLinear(top_size + memory_size, said_size, bias=False)
        self.joint_dropout = Dropout(joint_dropout)
        self.output_dropout = Dropout(output_dropout)
        self.output_size = said_size

    @property
    def parallel(self) -> bool:
        """Whether no step needs what the step before it said."""
        return not (self.look_before or self.input_feeding or self.attention.reads_coverage)

    def look(self, memory: Memory) -> Source:
        """See Decoder: the keys."""
        return Source(memory, self.attention.keys(memory.states))

    def start(self, source: Source) -> DecoderState:
        """See Decoder."""
        states = source.memory.states
        said = states.new_zeros(len(states), self.output_size) if self.input_feeding else None
        coverage = torch.zeros(states.shape[:2], device=states.device) if self.attention.reads_coverage else None
        return DecoderState(self.begin(source.memory), said, coverage)

    def forward(self, tokens: Tensor, source: Source, state: DecoderState, next_input: NextInput | None = None) -> DecoderOutput:
        """See Decoder."""
        if next_input is None and self.parallel:
            below, above = self.below_and_above(state.layers)
            output = self.network.read(self.network.embed(tokens), layers_first(below))
            attended = self.attend(output.hidden, source)
            top = self.read_above(output, attended.context, above)
            hidden = self.output_dropout(self.say(top.hidden, attended.context, self.joint_dropout))
            return DecoderOutput(hidden, top.raw, attended.weights, DecoderState(rows_first(top.state)))
        return self.step_by_step(tokens, source, state, next_input)

    def below_and_above(self, layers: tuple[State, ...]) -> tuple[tuple[State, ...], tuple[State, ...]]:
        """What is of the layers below the attention, and what is of those above it."""
        count = len(self.network.layers)
        return layers[:count], layers[count:]

    def read_above(self, output: RNNOutput, context: Tensor, state: tuple[State, ...]) -> RNNOutput:
        """What the network above says of `[s; c]`, with the states of all layers; where there is none, what the one below did."""
        if self.upper is None:
            return output
        top = self.upper.read(joined(output.hidden, context), layers_first(state))
        return top._replace(state=(*(output.state or ()), *(top.state or ())))

    def step_by_step(self, tokens: Tensor, source: Source, state: DecoderState, next_input: NextInput | None) -> DecoderOutput:
        """`forward` where a step depends on the one before; what does not is computed before the loop or after it."""
        steps = self.network.steps(len(tokens))
        upper = None if self.upper is None else self.upper.steps(len(tokens))
        above_attention = self.layers()[len(self.network.layers) :]
        word_at = self.words(steps, tokens, next_input)
        drop = self.joint_dropout.ahead(tokens.shape[1])
        nothing = state.layers[-1][0].new_empty(len(tokens), 0)
        (below, above), said, coverage = self.below_and_above(state.layers), state.said, state.coverage
        raws: list[Tensor] = []
        states: list[Tensor] = []
        looks: list[Attended] = []
        saids: list[Tensor] = []
        with gathered(self, tokens.shape[1]):
            for time in range(tokens.shape[1]):
                word, project = word_at(time, saids)
                if self.look_before:
                    looks.append(self.attend(below[-1][0][:, None], source, coverage))
                beside = self.beside(nothing, said, looks)
                # The whole input is looked at again only where it is added to the output.
                whole = torch.cat([word, beside], dim=-1) if self.network.residual else beside
                raw, below = steps.layers(project(beside), whole, below)
                raws.append(raw)
                states.append(steps.drop(raw))
                if not self.look_before:
                    looks.append(self.attend(states[-1][:, None], source, coverage))
                if upper is not None:
                    joint = joined(states[-1], looks[-1].context[:, 0])
                    raws[-1], above = upper.layers(above_attention[0].project(joint), joint, above)
                    states[-1] = upper.drop(raws[-1])
                if coverage is not None:
                    coverage = coverage + looks[-1].weights[:, 0]
                if self.input_feeding or next_input is not None:
                    saids.append(self.say(states[-1], looks[-1].context[:, 0], drop))
                    said = saids[-1] if self.input_feeding else None
        contexts = torch.cat([look.context for look in looks], dim=1)
        hidden = torch.stack(saids, dim=1) if saids else self.say(torch.stack(states, dim=1), contexts, self.joint_dropout)
        weights = torch.cat([look.weights for look in looks], dim=1)
        after = DecoderState((*below, *above), said, coverage)
        return DecoderOutput(self.output_dropout(hidden), torch.stack(raws, dim=1), weights, after)

    def words(self, steps: Steps, tokens: Tensor, next_input: NextInput | None) -> WordAt:
        """Teacher forcing knows all words, and their products, before the first step; otherwise they come one by one."""
        if next_input is None:
            embedded = self.network.embed(tokens)
            known, project = embedded.unbind(dim=1), self.first.project_ahead(embedded)
            return lambda time, _: (known[time], partial(project, time))

        def drawn(time: int, saids: Sequence[Tensor]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
            word = steps.embed(next_input(time, saids[-1]) if time else tokens[:, 0])
            return word, partial(self.first.project_ahead(word[:, None]), 0)

        return drawn

    def beside(self, nothing: Tensor, said: Tensor | None, looks: Sequence[Attended]) -> Tensor:
        """What stands beside the embedding in a step's input, `(rows, features)`."""
        context = looks[-1].context[:, 0] if self.look_before else None
        parts = [part for part in (said, context) if part is not None]
        # One part stays as it is: put together with nothing, which is fp32, it would leave half precision.
        return torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0] if parts else nothing

    def attend(self, queries: Tensor, source: Source, coverage: Tensor | None = None) -> Attended:
        """Look from queries `(rows, time, features)`: those of all rows of a sentence at once."""
        memory, rows, time = source.memory, *queries.shape[:2]
        sentences = len(memory.states)
        by_sentence = queries.reshape(sentences, -1, queries.shape[2])
        looked = None if coverage is None else coverage.view(sentences, -1, coverage.shape[1])
        context, weights = self.attention(by_sentence, source.keys, memory.states, memory.mask, looked)
        return Attended(context.reshape(rows, time, -1), weights.reshape(rows, time, -1))

    def say(self, state: Tensor, context: Tensor, drop: Callable[[Tensor], Tensor]) -> Tensor:
        """s̃ = tanh(W [s; c]), with dropout of [s; c]."""
        joint: Tensor = self.join(drop(joined(state, context)))
        return joint.tanh()


def joined(state: Tensor, context: Tensor) -> Tensor:
    """[s; c]."""
    return torch.cat([state, context.to(state.dtype)], dim=-1)
