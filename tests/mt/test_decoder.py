"""Encoder, bridge and decoder: steps equal the whole, hypotheses equal sentences, and padding reaches nothing."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from lm.bidirectional import Bidirectional
from lm.cells import ElmanCell, GRUCell, LSTMCell, ResetFirstGRUCell, Zoneout
from lm.layers import GRU, LSTM, RNN, LayerFactory
from lm.minimal import MinGRU
from lm.mogrifier import Mogrifier
from lm.network import RecurrentNetwork
from lm.qrnn import QRNN
from lm.sru import SRU
from lm.step_linear import Products
from lm.weight_drop import WeightDrop
from mt.attention import AdditiveAttention, AttentionFactory, DotAttention, GeneralAttention
from mt.attention_decoder import AttentionDecoder
from mt.bridge import BridgeFactory, CopyBridge, DirectionBridge, LearnedBridge, ZeroBridge
from mt.context_decoder import ContextDecoder
from mt.decoder import Decoder
from mt.encoder import Encoder, Memory
from mt.step import repeat

VOCAB, FEATURES, SENTENCES, SOURCE, TARGET = 13, 6, 3, 7, 5
LENGTHS = torch.tensor([7, 4, 5])
CELLS: dict[str, LayerFactory] = {
    "RNN": RNN,
    "GRU": GRU,
    "LSTM": LSTM,
    "ElmanCell": ElmanCell,
    "GRUCell": GRUCell,
    "ResetFirstGRUCell": ResetFirstGRUCell,
    "LSTMCell-norm": partial(LSTMCell, layer_norm=True),
    "Zoneout": partial(Zoneout, cell=GRUCell),
    "Mogrifier": partial(Mogrifier, rounds=3, rank=2),
    "MinGRU": MinGRU,
    "QRNN": partial(QRNN, window=2),
    "SRU": SRU,
}
ATTENTIONS: dict[str, AttentionFactory] = {
    "additive": AdditiveAttention,
    "coverage": partial(AdditiveAttention, coverage=True),
    "general": GeneralAttention,
    "dot": DotAttention,
}
LOOKS: tuple[Literal["before", "after"], ...] = ("before", "after")


@pytest.fixture(autouse=True)
def double() -> None:
    torch.manual_seed(0)


def tokens(time: int) -> Tensor:
    return torch.randint(VOCAB, (SENTENCES, time))


def make_encoder(cell: LayerFactory = GRU, layers: int = 2, bidirectional: bool = True) -> Encoder:
    network = partial(RecurrentNetwork, embedding_size=4, layer_sizes=[FEATURES] * layers, cell=cell, bidirectional=bidirectional)
    return Encoder(VOCAB, network).double().eval()


def make_decoder(encoder: Encoder, kind: Callable[..., Decoder], cell: LayerFactory = GRU, **settings: object) -> Decoder:
    network = partial(RecurrentNetwork, embedding_size=5, layer_sizes=[encoder.output_size] * 2, cell=cell, residual=True)
    return kind(VOCAB, encoder.output_size, encoder.state_sizes, network=network, **settings).double().eval()


def around(
    vocab_size: int, memory_size: int, state_sizes: list[int], network: Callable[..., RecurrentNetwork], **settings: Any
) -> AttentionDecoder:
    """Of the two layers one below the attention, and one above it."""
    below = partial(network, layer_sizes=[memory_size])
    return AttentionDecoder(vocab_size, memory_size, state_sizes, below, upper=partial(below, embedding_size=None), **settings)


KINDS: dict[str, Callable[..., Decoder]] = {
    **{f"context-{q}": partial(ContextDecoder, context=q) for q in ("final", "mean", "max")},
    **{
        f"{name}-{look}{'-fed' * fed}": partial(AttentionDecoder, attention=attention, look=look, input_feeding=fed)
        for (name, attention), look, fed in product(ATTENTIONS.items(), LOOKS, (False, True))
    },
    "general-between": partial(around, attention=GeneralAttention),
    "coverage-between": partial(around, attention=ATTENTIONS["coverage"]),
    "additive-between-before-fed": partial(around, attention=AdditiveAttention, look="before", input_feeding=True),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


# Encoder


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_reaches_neither_states_nor_the_final_one(cell: str, bidirectional: bool) -> None:
    encoder, source = make_encoder(CELLS[cell], bidirectional=bidirectional), tokens(SOURCE)
    memory = encoder(source, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        alone = encoder(source[row : row + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(memory.states[row, :length], alone.states[0])
        for together, single in zip(memory.final, alone.final, strict=True):
            for part, other in zip(together, single, strict=True):
                torch.testing.assert_close(part[:, row], other[:, 0])
    assert memory.mask.sum(dim=1).tolist() == LENGTHS.tolist()


def test_a_bidirectional_encoder_equals_torchs_on_packed_sentences() -> None:
    encoder, source = make_encoder(LSTM, layers=1), tokens(SOURCE)
    layer = encoder.network.layers[0]
    assert isinstance(layer, Bidirectional)
    theirs = torch.nn.LSTM(4, FEATURES, batch_first=True, bidirectional=True).double()
    for suffix, direction in (("", layer.ahead), ("_reverse", layer.back)):
        for name, weight in direction.rnn.named_parameters():  # type: ignore[union-attr]
            getattr(theirs, f"{name}{suffix}").data.copy_(weight)
    packed = torch.nn.utils.rnn.pack_padded_sequence(
        encoder.network.embedding(source), LENGTHS, batch_first=True, enforce_sorted=False
    )
    states, (hidden, memory) = theirs(packed)
    found = encoder(source, LENGTHS)
    torch.testing.assert_close(found.states, torch.nn.utils.rnn.pad_packed_sequence(states, batch_first=True)[0])
    torch.testing.assert_close(found.final, ((hidden, memory),))


# Bridges


def test_a_copied_state_is_the_encoders_with_its_directions_side_by_side() -> None:
    encoder = make_encoder(LSTM)
    memory = encoder(tokens(SOURCE), LENGTHS)
    states = CopyBridge(encoder.state_sizes, [12, 12], [2, 2])(memory)
    for state, final in zip(states, memory.final, strict=True):
        for part, given in zip(state, final, strict=True):
            torch.testing.assert_close(part, torch.cat([given[0], given[1]], dim=1))


def test_each_direction_of_the_encoder_begins_a_layer_of_its_own() -> None:
    encoder = make_encoder(LSTM)  # two layers, each of two directions
    memory = encoder(tokens(SOURCE), LENGTHS)
    states = DirectionBridge(encoder.state_sizes, [6] * 4, [2] * 4)(memory)
    for layer, (final, direction) in enumerate(product(memory.final, range(2))):
        torch.testing.assert_close(states[layer], tuple(part[direction] for part in final))


def test_directions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"layers of \[12\] features cannot .* layers of \[12\]: give it two layers for each"):
        DirectionBridge([12], [12], [1])
    for encoder in (make_encoder(GRU, layers=1), make_encoder(LSTM, layers=1, bidirectional=False)):
        (size,) = encoder.state_sizes
        with pytest.raises(ValueError, match="the encoder reads in one direction, or its cells are not the decoder's"):
            DirectionBridge([size], [size // 2] * 2, [2, 2])(encoder(tokens(SOURCE), LENGTHS))


def test_a_learned_state_has_a_map_of_its_own_for_every_layer_and_part() -> None:
    encoder = make_encoder(LSTM)
    memory = encoder(tokens(SOURCE), LENGTHS)
    bridge = LearnedBridge(encoder.state_sizes, [5, 3, 4], [2, 2, 1]).double()
    states = bridge(memory)
    assert [[tuple(part.shape) for part in state] for state in states] == [[(3, 5)] * 2, [(3, 3)] * 2, [(3, 4)]]
    last = torch.cat([memory.final[1][0][0], memory.final[1][0][1]], dim=1)  # the third layer goes by the second, the last
    torch.testing.assert_close(states[2][0], torch.tanh(bridge.maps[4](last)))
    assert len({id(made) for made in bridge.maps}) == 5


def test_a_memory_can_be_made_where_the_encoder_has_none() -> None:
    memory = make_encoder(GRU)(tokens(SOURCE), LENGTHS)
    (hidden, cell), *_ = LearnedBridge([12, 12], [6, 6], [2, 2]).double()(memory)
    assert hidden.shape == cell.shape
    assert not torch.allclose(hidden, cell)


def test_a_copy_of_other_sizes_or_cells_is_refused() -> None:
    with pytest.raises(ValueError, match=r"layers of \[5\] features cannot begin with states of \[6\]: make them equal"):
        CopyBridge([6], [5], [1])
    memory = make_encoder(GRU)(tokens(SOURCE), LENGTHS)
    with pytest.raises(ValueError, match="different cells: give both the same, or use LearnedBridge"):
        CopyBridge([12, 12], [12, 12], [2, 2])(memory)


# Decoders


@every_kind
@pytest.mark.parametrize("bridge", [LearnedBridge, CopyBridge, ZeroBridge])
def test_single_steps_equal_the_whole_target(kind: str, bridge: BridgeFactory) -> None:
    encoder = make_encoder()
    decoder, target = make_decoder(encoder, KINDS[kind], bridge=bridge), tokens(TARGET)
    source = decoder.look(encoder(tokens(SOURCE), LENGTHS))
    state = decoder.start(source)
    whole = decoder(target, source, state)
    for time in range(TARGET):
        step = decoder(target[:, time : time + 1], source, state)
        state = step.state
        torch.testing.assert_close(step.hidden[:, 0], whole.hidden[:, time])
        torch.testing.assert_close(step.raw[:, 0], whole.raw[:, time])
        if whole.attention is not None:
            torch.testing.assert_close(step.attention[:, 0], whole.attention[:, time])
    torch.testing.assert_close(state, whole.state)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("kind", ["context-mean", "general-after", "additive-before-fed", "general-between"])
def test_any_cell_decodes_step_by_step(kind: str, cell: str) -> None:
    encoder = make_encoder()
    decoder, target = make_decoder(encoder, KINDS[kind], CELLS[cell]), tokens(TARGET)
    source = decoder.look(encoder(tokens(SOURCE), LENGTHS))
    whole = decoder(target, source, decoder.start(source))
    first = decoder(target[:, :2], source, decoder.start(source))
    rest = decoder(target[:, 2:], source, first.state)
    torch.testing.assert_close(torch.cat([first.hidden, rest.hidden], dim=1), whole.hidden)


@every_kind
def test_a_given_next_input_equals_teacher_forcing_of_it(kind: str) -> None:
    encoder = make_encoder()
    decoder, target = make_decoder(encoder, KINDS[kind]), tokens(TARGET)
    source = decoder.look(encoder(tokens(SOURCE), LENGTHS))
    forced = decoder(target, source, decoder.start(source))
    said = []

    def next_input(time: int, last: Tensor) -> Tensor:
        said.append(last)
        return target[:, time]

    fed = decoder(target[:, :1].expand(-1, TARGET), source, decoder.start(source), next_input)
    torch.testing.assert_close(fed.hidden, forced.hidden)
    torch.testing.assert_close(torch.stack(said, dim=1), forced.hidden[:, :-1])


@every_kind
def test_several_hypotheses_of_a_sentence_share_its_source(kind: str) -> None:
    encoder = make_encoder()
    decoder, target = make_decoder(encoder, KINDS[kind]), torch.randint(VOCAB, (SENTENCES * 4, TARGET))
    memory = encoder(tokens(SOURCE), LENGTHS)
    source = decoder.look(memory)
    shared = decoder(target, source, repeat(decoder.start(source), 4))
    copied_memory = Memory(
        memory.states.repeat_interleave(4, dim=0),
        memory.mask.repeat_interleave(4, dim=0),
        tuple(tuple(part.repeat_interleave(4, dim=1) for part in layer) for layer in memory.final),
    )
    copied = decoder.look(copied_memory)
    torch.testing.assert_close(shared.hidden, decoder(target, copied, decoder.start(copied)).hidden)


@every_kind
def test_padding_of_the_source_changes_nothing_and_gets_no_gradient(kind: str) -> None:
    encoder = make_encoder()
    decoder, target, source_tokens = make_decoder(encoder, KINDS[kind]), tokens(TARGET), tokens(SOURCE)
    other = source_tokens.clone()
    other[1, 4:] = (other[1, 4:] + 1) % VOCAB
    outputs = []
    for given in (source_tokens, other):
        source = decoder.look(encoder(given, LENGTHS))
        outputs.append(decoder(target, source, decoder.start(source)).hidden)
    torch.testing.assert_close(outputs[0], outputs[1])
    embedded = encoder.network.embed(source_tokens).detach().requires_grad_()
    read = encoder.network.read(embedded, lengths=LENGTHS)
    memory = Memory(read.hidden, torch.arange(SOURCE) < LENGTHS[:, None], read.state or ())
    source = decoder.look(memory)
    decoder(target, source, decoder.start(source)).hidden.square().sum().backward()
    assert embedded.grad is not None
    assert (embedded.grad[~memory.mask] == 0).all()
    assert (embedded.grad[memory.mask] != 0).any(dim=-1).all()


def test_input_feeding_and_looking_before_make_the_context_an_input() -> None:
    encoder = make_encoder()
    fed = make_decoder(encoder, AttentionDecoder, input_feeding=True, output_size=9)
    assert fed.network.layers[0].input_size == 5 + 9
    before = make_decoder(encoder, AttentionDecoder, look="before", input_feeding=True, output_size=9)
    assert before.network.layers[0].input_size == 5 + 9 + encoder.output_size
    assert before.output_size == 9


def test_the_network_above_reads_state_and_context() -> None:
    encoder = make_encoder(layers=1)
    upper = partial(RecurrentNetwork, embedding_size=None, layer_sizes=[8], cell=GRU)
    decoder = make_decoder(encoder, AttentionDecoder, attention=GeneralAttention, upper=upper, output_size=9)
    assert isinstance(decoder, AttentionDecoder)
    source, target = decoder.look(encoder(tokens(SOURCE), LENGTHS)), tokens(TARGET)
    state = decoder.start(source)
    said = decoder(target, source, state)
    below = decoder.network.read(decoder.network.embed(target), tuple((part[0][None],) for part in state.layers[:2]))
    context, weights = decoder.attention(below.hidden, source.keys, source.memory.states, source.memory.mask)
    assert decoder.upper is not None
    layer = decoder.upper.layers[0]
    assert isinstance(layer, GRU)
    above, _ = layer.rnn(torch.cat([below.hidden, context], dim=-1), state.layers[2][0][None])
    torch.testing.assert_close(said.hidden, decoder.join(torch.cat([above, context], dim=-1)).tanh())
    torch.testing.assert_close(said.attention, weights)
    assert layer.input_size == 2 * encoder.output_size


def test_a_network_above_that_reads_words_is_refused() -> None:
    with pytest.raises(ValueError, match="the network above its attention reads no words: give it embedding_size null"):
        make_decoder(make_encoder(), AttentionDecoder, upper=partial(RecurrentNetwork, layer_sizes=[8]))


def test_coverage_is_the_sum_of_the_attention_so_far() -> None:
    encoder = make_encoder()
    decoder = make_decoder(encoder, KINDS["coverage-after"])
    source = decoder.look(encoder(tokens(SOURCE), LENGTHS))
    output = decoder(tokens(TARGET), source, decoder.start(source))
    assert output.attention is not None
    assert output.state.coverage is not None
    torch.testing.assert_close(output.state.coverage, output.attention.sum(dim=1))


@pytest.mark.parametrize("kind", ["context-final", "general-after", "additive-after-fed", "additive-before", "general-between"])
def test_gradients_of_steps_equal_those_of_the_whole(kind: str) -> None:
    encoder = make_encoder()
    decoder, target = make_decoder(encoder, KINDS[kind]), tokens(TARGET)
    found = []
    for next_input in (None, lambda time, _said: target[:, time]):
        memory = encoder(tokens(SOURCE) * 0, LENGTHS)
        source = decoder.look(memory)
        hidden = decoder(target, source, decoder.start(source), next_input).hidden
        found.append(torch.autograd.grad(hidden.square().sum(), list(decoder.parameters()), allow_unused=True))
    for whole, steps in zip(*found, strict=True):
        torch.testing.assert_close(whole, steps)


@pytest.mark.parametrize("own_words", [False, True])
@pytest.mark.parametrize("cell", ["GRU", "LSTMCell-norm", "weight drop", "Mogrifier"])
@pytest.mark.parametrize("kind", ["additive-after-fed", "additive-before", "coverage-after", "general-between", "context-final"])
def test_gradients_made_at_once_are_those_of_step_after_step(
    kind: str, cell: str, own_words: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, target = make_encoder(), tokens(TARGET)
    layer = CELLS.get(cell, partial(WeightDrop, cell=GRU, rate=0.3))
    decoder = make_decoder(encoder, KINDS[kind], layer).train()
    source, next_input = tokens(SOURCE), tokens(TARGET)

    def gradients(worth: float) -> dict[str, Tensor | None]:
        monkeypatch.setattr("lm.step_linear.WORTH_GATHERING", worth)
        both = torch.nn.ModuleList([encoder, decoder])
        both.zero_grad()
        torch.manual_seed(1)  # the same masks
        memory = encoder(source, LENGTHS)
        looked = decoder.look(memory)
        given = (lambda time, _: next_input[:, time]) if own_words else None
        hidden = decoder(target, looked, decoder.start(looked), given).hidden
        (hidden * torch.arange(hidden.numel()).sin().view(hidden.shape)).sum().backward()
        return {name: weight.grad for name, weight in both.named_parameters()}

    at_once, by_step = gradients(0), gradients(float("inf"))
    for name, expected in by_step.items():
        torch.testing.assert_close(at_once[name], expected, rtol=1e-10, atol=1e-12)


def test_an_input_fed_decoder_gathers_what_it_multiplies_at_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, seen = make_encoder(), list[Tensor]()
    decoder = make_decoder(encoder, KINDS["additive-after-fed"])
    assert isinstance(decoder, AttentionDecoder)

    def noted(weight: Tensor, bias: Tensor | None, steps: int) -> Products:
        seen.append(weight)
        return Products(weight, bias, steps)

    monkeypatch.setattr("lm.step_linear.WORTH_GATHERING", 0)
    monkeypatch.setattr("lm.step_linear.Products", noted)
    looked = decoder.look(encoder(tokens(SOURCE), LENGTHS))
    decoder(tokens(TARGET), looked, decoder.start(looked))
    recurrent = [weight for layer in decoder.layers() for weight in layer.recurrent_weights()]
    assert isinstance(decoder.attention, AdditiveAttention)
    for weight in (*recurrent, decoder.join.weight, decoder.attention.from_query.weight):
        assert sum(weight is one for one in seen) == 1
    assert [one.shape for one in seen if one.dim() == 3] == [looked.memory.states.mT.shape]


def test_locked_dropout_keeps_its_mask_from_step_to_step() -> None:
    encoder = make_encoder()
    network = partial(RecurrentNetwork, embedding_size=50, layer_sizes=[12], cell=GRU, input_dropout=0.5, output_dropout=0.5)
    decoder = ContextDecoder(VOCAB, 12, encoder.state_sizes, network).double().train()
    steps = decoder.network.steps(SENTENCES)
    same = torch.full((SENTENCES,), 3)
    torch.testing.assert_close(steps.embed(same), steps.embed(same))
    assert not torch.equal(steps.embed(same), decoder.network.steps(SENTENCES).embed(same))
    dropped = steps.drop(torch.ones(SENTENCES, 12))
    torch.testing.assert_close(dropped, steps.drop(torch.ones(SENTENCES, 12)))
    assert set(dropped.flatten().tolist()) == {0.0, 2.0}


def test_a_decoder_that_reads_in_both_directions_is_refused() -> None:
    with pytest.raises(TypeError, match="decoder: it writes word by word, and Bidirectional cannot"):
        AttentionDecoder(VOCAB, 6, [6], partial(RecurrentNetwork, bidirectional=True))
