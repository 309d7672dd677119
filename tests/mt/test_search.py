import math
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from tiny_models import BOS, EOS, PAD, SPECIAL, UNK, VOCAB, A, B, Tables, texts
from torch import Tensor, nn

from lm.rebuild import describe, rebuild
from lm.sampling import Sampling
from mt.beam import BeamSearch
from mt.constraints import Constraints
from mt.diverse import DiverseBeamSearch
from mt.exhaustive import ExhaustiveSearch
from mt.ranking import Ranking
from mt.sampled import SamplingSearch
from mt.search import GreedySearch, Search, SearchOutput
from mt.step import StepOutput
from mt.stochastic import StochasticBeamSearch

SEARCHES: dict[str, Search] = {
    "greedy": GreedySearch(),
    "beam": BeamSearch(width=4, n_best=3),
    "gnmt": BeamSearch(width=3, n_best=2, ranking=Ranking(alpha=0.6, offset=5, coverage=0.3)),
    "constrained": BeamSearch(width=4, n_best=4, constraints=Constraints(min_length=3, no_repeat_ngram=2, ban_unknown=True)),
    "greedy constrained": GreedySearch(constraints=Constraints(min_length=3, no_repeat_ngram=2)),
    "threshold": BeamSearch(width=6, n_best=6, threshold=0.2),
    "diverse": DiverseBeamSearch(width=6, groups=3, n_best=6, diversity=0.7),
    "stochastic": StochasticBeamSearch(width=5, seed=3),
    "stochastic constrained": StochasticBeamSearch(width=5, constraints=Constraints(no_repeat_ngram=1)),
    "sampling": SamplingSearch(samples=4, sampling=Sampling(temperature=1.3, top_k=4, seed=5)),
    "exhaustive": ExhaustiveSearch(n_best=4, ranking=Ranking(alpha=1)),
}
every_search = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES.keys())
MAX_LENGTHS = [7, 3, 6, 5]
PREFIXES = [[], [A, B], [UNK], []]
SOURCE_LENGTHS = torch.tensor([4, 2, 3, 4])


def same(one: Tensor, other: Tensor) -> bool:
    """Equal to the last bit, but for padding."""
    length = min(one.shape[-1], other.shape[-1])
    rest = [tensor[..., length:] for tensor in (one, other)]
    return torch.equal(one[..., :length], other[..., :length]) and all(bool((part == PAD).all()) for part in rest)


@every_search
@pytest.mark.parametrize("prefixes", [[[]] * 4, PREFIXES], ids=["free", "prefixes"])
def test_a_batch_equals_its_sentences_one_by_one(search: Search, prefixes: list[list[int]]) -> None:
    model = Tables.random(4)
    batch = model.search(search, MAX_LENGTHS, prefixes=prefixes, source_lengths=SOURCE_LENGTHS, numbers=[7, 0, 3, 1])
    for i, number in enumerate([7, 0, 3, 1]):
        alone = model.only(i).search(
            search, MAX_LENGTHS[i], prefixes=prefixes[i : i + 1], source_lengths=SOURCE_LENGTHS[i : i + 1], numbers=[number]
        )
        assert same(alone.tokens[0], batch.tokens[i])
        assert torch.equal(alone.score[0], batch.score[i])
        assert torch.equal(alone.log_prob[0], batch.log_prob[i])
        assert torch.equal(alone.finished[0], batch.finished[i])
        assert alone.attention is not None
        assert batch.attention is not None
        length = alone.attention.shape[2]
        assert torch.equal(alone.attention[0], batch.attention[i, :, :length])
        assert not batch.attention[i, :, length:].any()


@every_search
@pytest.mark.parametrize("seed", range(3))
def test_scores_are_those_of_reading_the_output_again(search: Search, seed: int) -> None:
    model = Tables.random(4, seed=seed)
    output = model.search(search, MAX_LENGTHS, prefixes=PREFIXES, source_lengths=SOURCE_LENGTHS)
    assert output.attention is not None
    found = 0
    for i in range(4):
        for place, text in enumerate(texts(output, i)):
            found += 1
            assert output.log_prob[i, place].item() == pytest.approx(sum(model.log_probs(text, i)), abs=1e-12)
            assert output.attention[i, place].sum(0).tolist() == pytest.approx(model.coverage(text, i), abs=1e-12)
            assert bool(output.finished[i, place]) == (text[-1] == EOS)
            assert not {EOS, BOS, PAD} & set(text[:-1])
            assert len(text) == MAX_LENGTHS[i] or text[-1] == EOS
            assert list(text[: len(PREFIXES[i])]) == PREFIXES[i]
            assert (output.tokens[i, place, len(text) :] == PAD).all()
    assert found >= 4


@every_search
def test_a_recurrent_model_is_followed_through_its_states(search: Search) -> None:
    """A GRU with attention over padded sources, each row re-scored by reading its translation as one sequence."""
    torch.manual_seed(0)
    embedding, cell, head = nn.Embedding(VOCAB, 5).double(), nn.GRUCell(5, 8).double(), nn.Linear(16, VOCAB).double()
    memory, lengths = torch.randn(3, 4, 8, dtype=torch.float64), torch.tensor([4, 2, 3])

    def step(tokens: Tensor, state: Any) -> StepOutput:
        sentence = torch.arange(len(tokens)) // (len(tokens) // 3)
        hidden = cell(embedding(tokens), state[0])
        logits = torch.einsum("rth,rh->rt", memory[sentence], hidden)
        attention = logits.masked_fill(torch.arange(4) >= lengths[sentence, None], -torch.inf).softmax(-1)
        context = torch.einsum("rt,rth->rh", attention, memory[sentence])
        return StepOutput(head(torch.cat([hidden, context], -1) * 3).log_softmax(-1), (hidden, None), attention)

    start = (memory.mean(1), None)
    with torch.no_grad():
        output = search(step, start, 3, SPECIAL, 6, source_lengths=lengths)
        sentences, n_best, length = output.tokens.shape
        state = (memory.mean(1).repeat_interleave(n_best, 0), None)
        token = torch.full((sentences * n_best,), BOS)
        total = torch.zeros(sentences * n_best, dtype=torch.float64)
        for position in range(length):
            log_prob, state, attention = step(token, state)
            token = output.tokens[..., position].flatten()
            real = token != PAD
            total += log_prob.gather(1, token[:, None]).squeeze(1) * real
            assert output.attention is not None
            assert attention is not None
            assert torch.allclose(output.attention[:, :, position].flatten(0, 1), attention * real[:, None], atol=1e-12)
    exists = output.lengths > 0
    assert exists[:, 0].all()
    assert torch.allclose(output.log_prob[exists], total.view(sentences, n_best)[exists], atol=1e-10)


def test_greedy_takes_the_most_probable_until_the_end() -> None:
    model = Tables.after_last({BOS: {A: 0.5, B: 0.3, EOS: 0.2}, A: {A: 0.1, B: 0.7, EOS: 0.2}, B: {A: 0.3, B: 0.3, EOS: 0.4}})
    output = model.search(GreedySearch(), 10)
    assert texts(output) == [(A, B, EOS)]
    assert output.log_prob.item() == output.score.item() == pytest.approx(math.log(0.5 * 0.7 * 0.4))
    assert output.finished.item()
    assert output.attention is None
    assert model.calls == 3


def test_the_maximum_length_counts_the_end_and_cuts() -> None:
    model = Tables.after_last({BOS: {A: 1}, A: {B: 1}, B: {EOS: 1}})
    for search in (GreedySearch(), BeamSearch(width=3), StochasticBeamSearch(width=1), ExhaustiveSearch(), SamplingSearch()):
        assert texts(model.search(search, 3)) == [(A, B, EOS)]
        output = model.search(search, 2)
        assert texts(output) == [(A, B)]
        assert not output.finished.any()


def test_of_two_maximum_lengths_the_smaller_counts() -> None:
    model = Tables.after_last({BOS: {A: 1}, A: {B: 1}, B: {EOS: 1}})
    for own, given, expected in ((2, 9, (A, B)), (9, 2, (A, B)), (3, 9, (A, B, EOS))):
        search = GreedySearch(constraints=Constraints(max_length=own))
        assert texts(model.search(search, given)) == [expected]


@every_search
def test_where_nothing_is_possible_there_is_no_translation(search: Search) -> None:
    """A word that leads nowhere, an unknown word that is all there is, and, in the same batch, a sentence that is fine."""
    dead = Tables.after_last({BOS: {A: 1}}).log_prob
    fine = Tables.after_last({BOS: {A: 0.5, B: 0.5}, A: {B: 1}, B: {EOS: 0.5, A: 0.5}}).log_prob
    model = Tables(torch.cat([dead, fine]), torch.full((2, VOCAB, VOCAB, 2), 0.5, dtype=torch.float64))
    output = model.search(search, 6, source_lengths=torch.tensor([2, 2]))
    assert output.lengths[0].tolist() == [0] * output.lengths.shape[1]
    assert (output.tokens[0] == PAD).all()
    assert output.log_prob[0].isneginf().all()
    assert output.score[0].isneginf().all()
    assert not output.finished[0].any()
    assert output.lengths[1, 0] > 0
    assert not output.score.isnan().any()
    assert output.attention is not None
    assert output.attention.isfinite().all()


@every_search
def test_equally_probable_translations_are_told_apart(search: Search) -> None:
    model = Tables(torch.full((2, VOCAB, VOCAB, VOCAB), 1 / VOCAB, dtype=torch.float64).log(), Tables.random(2).attention)
    output = model.search(search, 4, source_lengths=torch.tensor([4, 4]))
    assert output.score.isfinite().all()
    if not isinstance(search, SamplingSearch | DiverseBeamSearch):
        assert all(len(set(texts(output, i))) == len(texts(output, i)) for i in range(2))


def test_half_precision_adds_up_in_double() -> None:
    """A sum of 400 such logarithms in bfloat16 would stop growing at 32."""

    def step(tokens: Tensor, state: Any) -> StepOutput:
        log_prob = torch.full((len(tokens), VOCAB), -0.125, dtype=torch.bfloat16)
        log_prob[:, EOS] = -9
        return StepOutput(log_prob, state)

    for search in (GreedySearch(), BeamSearch(width=2), StochasticBeamSearch(width=2), SamplingSearch(sampling=Sampling(0))):
        output = search(step, None, 1, SPECIAL, 400)
        total = output.log_prob[output.lengths == 400]
        assert (total == -0.125 * 400).all()


@every_search
def test_a_search_can_be_rebuilt_from_plain_data(search: Search) -> None:
    assert rebuild(describe(search)) == search


def test_yaml_builds_a_search_and_its_parts() -> None:
    parser = ArgumentParser()
    parser.add_argument("--search", type=Search)
    init_args = {"width": 7, "ranking": {"alpha": 0.6, "offset": 5}, "constraints": {"ban_unknown": True}}
    parsed = parser.instantiate(parser.parse_object({"search": {"class_path": "mt.beam.BeamSearch", "init_args": init_args}}))
    assert parsed.search == BeamSearch(width=7, ranking=Ranking(alpha=0.6, offset=5), constraints=Constraints(ban_unknown=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_length": 0}, "max_length=0"),
        ({"max_length": [3, 0]}, r"max_length=\[3, 0\]"),
        ({"max_length": [3, 3, 3]}, r"sentences=2, max_length=\[3, 3, 3\]"),
        ({"sentences": 0}, "sentences=0"),
        ({"max_length": [9, 4]}, "at least 5 and at most 4"),
        ({"prefixes": [[A]]}, "1 for 2 sentences"),
        ({"prefixes": [[A], [A] * 10]}, "sentence 1, .* fit into 9 tokens"),
        ({"prefixes": [[A, EOS], []]}, "sentence 0"),
        ({"prefixes": [[A], [PAD]]}, "sentence 1"),
    ],
)
def test_what_cannot_be_met_is_refused_with_its_value(settings: dict[str, Any], message: str) -> None:
    model = Tables.random(2)
    arguments = {"sentences": 2, "max_length": 9} | settings
    with pytest.raises(ValueError, match=message):
        GreedySearch(constraints=Constraints(min_length=5))(model.step, model.start(2), special=SPECIAL, **arguments)


def test_a_gradient_is_not_recorded() -> None:
    weight = torch.zeros(1, VOCAB, requires_grad=True)
    output: SearchOutput = GreedySearch()(lambda _, state: StepOutput(weight.log_softmax(-1), state), None, 1, SPECIAL, 3)
    assert not output.log_prob.requires_grad
