import itertools

import pytest
import torch
from tiny_models import BOS, EOS, UNK, A, B, Tables, length_score, p_value, texts
from torch import Tensor

from lm.sampling import Sampling
from mt.constraints import Constraints
from mt.sampled import SamplingSearch
from mt.search import Search, SearchOutput
from mt.stochastic import StochasticBeamSearch, condition

DRAWS = 10_000
ROWS = {BOS: {A: 0.5, B: 0.3, EOS: 0.2}, A: {A: 0.1, B: 0.6, EOS: 0.3}, B: {A: 0.35, B: 0.25, EOS: 0.4}}
LENGTH = 3


class ManyTimes(Tables):
    """One model for any number of sentences."""

    def __init__(self, model: Tables) -> None:
        super().__init__(model.log_prob.expand(DRAWS, -1, -1, -1))


def leaves(rows: dict[int, dict[int, float]] = ROWS, length: int = LENGTH) -> dict[tuple[int, ...], float]:
    """Every translation and its probability, which sum to 1."""
    found: dict[tuple[int, ...], float] = {}
    open_ends: dict[tuple[int, ...], float] = {(): 1.0}
    for position in range(length):
        grown: dict[tuple[int, ...], float] = {}
        for text, probability in open_ends.items():
            for token, share in rows[text[-1] if text else BOS].items():
                ended = token == EOS or position == length - 1
                (found if ended else grown)[*text, token] = probability * share
        open_ends = grown
    return found


def drawn(search: Search, rows: dict[int, dict[int, float]] = ROWS, length: int = LENGTH) -> SearchOutput:
    return ManyTimes(Tables.after_last(rows)).search(search, length)


def counted(output: SearchOutput, names: list[tuple[tuple[int, ...], ...]]) -> Tensor:
    """How often each tuple of translations came, in the order of the names."""
    code = {name: i for i, name in enumerate(names)}
    counts = torch.zeros(len(names))
    lengths = output.lengths.tolist()
    for tokens, row in zip(output.tokens.tolist(), lengths, strict=True):
        counts[code[tuple(tuple(text[:length]) for text, length in zip(tokens, row, strict=True))]] += 1
    return counts


def without_replacement(chances: dict[tuple[int, ...], float], count: int) -> dict[tuple[tuple[int, ...], ...], float]:
    """The probability of every ordered sample: each draw from what the ones before it have left."""
    samples = {}
    for sample in itertools.permutations(chances, count):
        probability, left = 1.0, 1.0
        for text in sample:
            probability *= chances[text] / left
            left -= chances[text]
        samples[sample] = probability
    return samples


@pytest.mark.parametrize("width", [1, 2])
def test_a_stochastic_beam_samples_without_replacement(width: int) -> None:
    """All ordered samples of the 13 translations have the frequencies that drawing one after another would give."""
    chances = leaves()
    assert sum(chances.values()) == pytest.approx(1)
    samples = without_replacement(chances, width)
    counts = counted(drawn(StochasticBeamSearch(width=width, seed=1)), list(samples))
    assert p_value(counts, torch.tensor(list(samples.values())) * DRAWS) > 1e-4


def test_inclusion_frequencies_match_their_probabilities() -> None:
    """Of each translation by itself, for three of the seven translations of at most two tokens."""
    chances = leaves(length=2)
    samples = without_replacement(chances, 3)
    output = drawn(StochasticBeamSearch(width=3, seed=2), length=2)
    counts = counted(output, list(samples))
    assert p_value(counts, torch.tensor(list(samples.values())) * DRAWS) > 1e-4
    for text in chances:
        included = torch.tensor([text in sample for sample in samples])
        probability = float(torch.tensor(list(samples.values()))[included].sum())
        seen = float(counts[included].sum())
        assert p_value(torch.tensor([seen, DRAWS - seen]), torch.tensor([probability, 1 - probability]) * DRAWS) > 1e-4


def test_a_test_of_frequencies_would_notice_draws_with_replacement() -> None:
    chances = leaves()
    samples = without_replacement(chances, 2) | {(text, text): 0.0 for text in chances}
    counts = counted(drawn(SamplingSearch(samples=2)), list(samples))
    assert p_value(counts, torch.tensor(list(samples.values())) * DRAWS) < 1e-20


def test_what_constraints_leave_is_what_is_sampled_from() -> None:
    """q gives each row's unknown word to the others in proportion; log p stays that of the model, G belongs to q."""
    rows = {last: {token: 0.6 * p for token, p in row.items()} | {UNK: 0.4} for last, row in ROWS.items()}
    output = drawn(StochasticBeamSearch(width=2, seed=6, constraints=Constraints(ban_unknown=True)), rows)
    samples = without_replacement(leaves(), 2)
    assert p_value(counted(output, list(samples)), torch.tensor(list(samples.values())) * DRAWS) > 1e-4
    assert output.log_prob[0, 0].item() == pytest.approx(sum(Tables.after_last(rows).log_probs(texts(output)[0])))
    # The mean of the largest is that of a standard Gumbel variable, Euler's constant.
    assert output.score[:, 0].mean().item() == pytest.approx(0.5772, abs=4 * 1.2825 / DRAWS**0.5)


def test_the_largest_score_is_a_standard_gumbel_variable() -> None:
    """The largest of all perturbed log-probabilities, whatever their number: P(G < g) = exp(−exp(−g))."""
    scores = drawn(StochasticBeamSearch(width=3, seed=4)).score
    cumulative = (-(-scores[:, 0]).exp()).exp()
    counts = torch.histc(cumulative.float(), bins=20, min=0, max=1)
    assert p_value(counts, torch.full((20,), DRAWS / 20)) > 1e-4
    assert (scores.diff(dim=1) < 0).all()


def test_weights_make_unbiased_estimates() -> None:
    """Σ f(y)·p(y)/(1 − exp(−exp(log p(y) − κ))) over a sample but its last estimates the mean of f: of 1 and of the length."""
    output = drawn(StochasticBeamSearch(width=4, seed=5))
    threshold = output.score[:, -1:]
    weights = output.log_prob.exp() / (1 - (-(output.log_prob - threshold).exp()).exp())
    for values, mean in (
        (torch.ones_like(weights), 1.0),
        (output.lengths.double(), sum(len(text) * chance for text, chance in leaves().items())),
    ):
        estimates = (weights * values)[:, :-1].sum(dim=1)
        assert estimates.mean().item() == pytest.approx(mean, abs=4 * float(estimates.std()) / DRAWS**0.5)


def test_a_beam_as_wide_as_the_space_holds_every_translation_once() -> None:
    model = Tables.random(3)
    output = model.search(StochasticBeamSearch(width=200), 3)
    for i in range(3):
        found = texts(output, i)
        assert len(found) == len(set(found)) == 1 + 3 + 9 + 27
        assert output.log_prob[i, : len(found)].tolist() == pytest.approx([length_score(0)(model, text, i) for text in found])
        assert (output.score[i].diff()[: len(found) - 1] < 0).all()


@pytest.mark.parametrize("search", [StochasticBeamSearch(width=3, seed=1), SamplingSearch(samples=3, sampling=Sampling(seed=1))])
def test_noise_is_a_function_of_seed_and_number(search: Search) -> None:
    model = Tables(Tables.random(1).log_prob.expand(4, -1, -1, -1), None)
    first = model.search(search, 8, numbers=[0, 1, 2, 0])
    assert torch.equal(first.tokens[0], first.tokens[3])
    assert len({str(texts(first, i)) for i in range(3)}) == 3
    again = model.search(search, 8, numbers=[5, 2, 0, 1])
    assert [texts(again, i) for i in (2, 3, 1)] == [texts(first, i) for i in (0, 1, 2)]


def test_another_seed_is_another_sample() -> None:
    model = Tables.random(4)
    for make in (lambda seed: StochasticBeamSearch(seed=seed), lambda seed: SamplingSearch(sampling=Sampling(seed=seed))):
        first, same, other = (model.search(make(seed), 8) for seed in (1, 1, 2))
        assert torch.equal(first.tokens, same.tokens)
        assert not torch.equal(first.score, other.score)


def test_conditioned_variables_have_their_largest_and_keep_their_order() -> None:
    """In the plain form of the equation, and where that form overflows."""
    value = torch.tensor([[3.0, 2.0, 2.0, -1.0, -torch.inf]], dtype=torch.float64)
    largest = torch.tensor([[1.5]], dtype=torch.float64)
    plain = -((-largest).exp() - (-value[:, :1]).exp() + (-value).exp()).log()
    assert torch.allclose(condition(value, largest), plain)
    assert condition(value, largest)[0, 0] == 1.5
    far = condition(torch.tensor([[900.0, 899.0, -900.0]], dtype=torch.float64), torch.tensor([[-900.0]], dtype=torch.float64))
    assert far[0, 0] == -900
    assert far.isfinite().all()
    assert (far.diff() <= 0).all()
    nothing = torch.full((1, 3), -torch.inf)
    assert condition(nothing, torch.tensor([[0.3]])).isneginf().all()
    assert condition(torch.tensor([[1.0, -torch.inf]]), torch.tensor([[-torch.inf]])).isneginf().all()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.5), Sampling(top_k=2), Sampling(top_p=0.7)])
def test_samples_have_the_frequencies_of_the_distribution(sampling: Sampling) -> None:
    """Written out for each setting from the rows themselves."""

    def changed(row: dict[int, float]) -> dict[int, float]:
        ordered = sorted(row.items(), key=lambda item: -item[1])[: sampling.top_k]
        kept, reached = {}, 0.0
        for token, probability in ordered:
            if reached < (sampling.top_p or 1):
                kept[token] = probability ** (1 / sampling.temperature)
            reached += probability
        return {token: share / sum(kept.values()) for token, share in kept.items()}

    chances = leaves({last: changed(row) for last, row in ROWS.items()})
    counts = counted(drawn(SamplingSearch(sampling=sampling)), [(text,) for text in leaves()])
    expected = torch.tensor([chances.get(text, 0.0) for text in leaves()])
    assert counts[expected == 0].sum() == 0
    assert p_value(counts, expected * DRAWS) > 1e-4


def test_samples_of_a_sentence_are_independent() -> None:
    chances = leaves(length=2)
    pairs = {(one, other): p * q for one, p in chances.items() for other, q in chances.items()}
    counts = counted(drawn(SamplingSearch(samples=2), length=2), list(pairs))
    assert p_value(counts, torch.tensor(list(pairs.values())) * DRAWS) > 1e-4


def test_sampling_at_temperature_0_is_greedy() -> None:
    model = Tables.random(3)
    output = model.search(SamplingSearch(samples=2, sampling=Sampling(temperature=0)), 6)
    for i in range(3):
        one, other = texts(output, i)
        assert one == other


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: StochasticBeamSearch(width=0), "width=0"),
        (lambda: StochasticBeamSearch(seed=-1), "seed=-1"),
        (lambda: SamplingSearch(samples=0), "samples .* got 0"),
    ],
)
def test_settings_out_of_range_are_refused(build: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
