"""Sampling: the right tokens, as often as they should come, whatever stands beside them in the batch."""

import math
from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor

from lm.cells import LSTMCell
from lm.layers import LSTM, LayerFactory
from lm.module import LanguageModel
from lm.network import NetworkState
from lm.qrnn import QRNN
from lm.sampling import Sampling, Step, generate
from lm.sru import SRU

VOCAB = 6
PROBABILITIES = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.06, 0.04], dtype=torch.float64)
ORDER = [3, 0, 5, 1, 4, 2]  # the most probable id first
CHI_SQUARE_1_IN_1000 = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52}  # by degrees of freedom

pytestmark = pytest.mark.usefixtures("seed")


def shuffled(probabilities: Tensor = PROBABILITIES) -> Tensor:
    """The probabilities at their ids."""
    return torch.zeros(VOCAB, dtype=torch.float64).scatter(0, torch.tensor(ORDER), probabilities)


def always(probabilities: Tensor) -> Step:
    """A model that forgets: the same distribution after every token."""

    def step(tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
        return probabilities.log().repeat(len(tokens), 1), state or ()

    return step


def counting(tokens: Tensor, state: NetworkState | None) -> tuple[Tensor, NetworkState]:
    """A model that counts modulo VOCAB: after n comes n + 1."""
    log_prob = torch.full((len(tokens), VOCAB), -10.0)
    return log_prob.scatter(1, (tokens[:, -1:] + 1) % VOCAB, 0), state or ()


def drawn(sampling: Sampling, count: int = 3000) -> Tensor:
    """How often each id comes in `count` texts of two tokens."""
    texts = generate(always(shuffled()), [[0]] * count, 2, sampling)
    return torch.tensor([token for text in texts for token in text]).bincount(minlength=VOCAB)


def chi_square(counts: Tensor, probabilities: Tensor) -> float:
    kept = probabilities > 0
    expected = probabilities[kept] / probabilities[kept].sum() * counts.sum()
    return float(((counts[kept] - expected).square() / expected).sum())


def real_model(cell: LayerFactory = LSTM) -> LanguageModel:
    """Double precision, so that a row's arithmetic cannot depend on how many rows there are; far from uniform."""
    model = LanguageModel(VOCAB, 8, [16, 12], cell).double().eval()
    for parameter in model.parameters():
        parameter.data.mul_(4)
    return model


@torch.no_grad()
def continued(model: LanguageModel, prefixes: Sequence[Sequence[int]], sampling: Sampling, length: int = 15) -> list[list[int]]:
    return generate(model.next_token, prefixes, length, sampling)


def test_greedy_takes_the_most_probable() -> None:
    assert generate(always(shuffled()), [[0], [1]], 4, Sampling(temperature=0)) == [[3] * 4] * 2
    assert generate(counting, [[0], [3]], 4, Sampling(temperature=0)) == [[1, 2, 3, 4], [4, 5, 0, 1]]


def test_frequencies_match_the_distribution() -> None:
    assert chi_square(drawn(Sampling()), shuffled()) < CHI_SQUARE_1_IN_1000[5]


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_a_temperature_raises_probabilities_to_its_inverse(temperature: float) -> None:
    counts = drawn(Sampling(temperature=temperature))
    assert chi_square(counts, shuffled() ** (1 / temperature)) < CHI_SQUARE_1_IN_1000[5]
    assert chi_square(counts, shuffled()) > 3 * CHI_SQUARE_1_IN_1000[5]


@pytest.mark.parametrize("k", [1, 2, 4, 6, 100])
def test_top_k_keeps_the_k_most_probable(k: int) -> None:
    counts = drawn(Sampling(top_k=k))
    kept = min(k, VOCAB)
    assert set(counts.nonzero().flatten().tolist()) == set(ORDER[:kept])
    truncated = shuffled() * torch.zeros(VOCAB).scatter(0, torch.tensor(ORDER[:kept]), 1)
    assert kept == 1 or chi_square(counts, truncated) < CHI_SQUARE_1_IN_1000[kept - 1]


@pytest.mark.parametrize(("p", "kept"), [(0.01, 1), (0.39, 1), (0.41, 2), (0.64, 2), (0.66, 3), (0.81, 4), (0.95, 5), (1.0, 6)])
def test_top_p_keeps_the_fewest_that_reach_p(p: float, kept: int) -> None:
    """Sums of the most probable: 0.4, 0.65, 0.8, 0.9, 0.96, 1."""
    counts = drawn(Sampling(top_p=p))
    assert set(counts.nonzero().flatten().tolist()) == set(ORDER[:kept])
    truncated = shuffled() * torch.zeros(VOCAB).scatter(0, torch.tensor(ORDER[:kept]), 1)
    assert kept == 1 or chi_square(counts, truncated) < CHI_SQUARE_1_IN_1000[kept - 1]


def test_top_p_is_taken_of_what_top_k_and_the_temperature_leave() -> None:
    """Of 0.4, 0.25, 0.15 the first has exactly half: so p = 0.55 takes two, where of all six 0.6 would."""
    assert set(drawn(Sampling(top_k=3, top_p=0.49)).nonzero().flatten().tolist()) == set(ORDER[:1])
    assert set(drawn(Sampling(top_k=3, top_p=0.55)).nonzero().flatten().tolist()) == set(ORDER[:2])
    # Squared, the most probable has 0.16 of 0.2582: 62%.
    assert set(drawn(Sampling(temperature=0.5, top_p=0.6)).nonzero().flatten().tolist()) == set(ORDER[:1])


@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2**-53])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_even_the_last_draw_chooses_a_token_that_has_a_probability(draw: float, dtype: torch.dtype) -> None:
    log_prob = shuffled().to(dtype).log()
    log_prob[ORDER[4:]] = -torch.inf
    for sampling in (Sampling(), Sampling(top_k=2), Sampling(top_p=0.3)):
        chosen = sampling.choose(log_prob[None], torch.tensor([draw], dtype=torch.float64))
        assert chosen.item() in ORDER[:4]


def test_a_draw_falls_into_the_interval_of_its_token() -> None:
    """Half, a quarter, a quarter: [0, 0.5), [0.5, 0.75), [0.75, 1)."""
    draws = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.99], dtype=torch.float64)
    log_prob = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().repeat(len(draws), 1)
    assert Sampling().choose(log_prob, draws).tolist() == [0, 0, 1, 1, 2, 2]


def test_the_same_seed_gives_the_same_text_and_another_seed_another() -> None:
    model = real_model()
    texts = {seed: continued(model, [[0], [1]], Sampling(seed=seed), 40) for seed in (0, 1, 2, 2**32 - 1)}
    assert continued(model, [[0], [1]], Sampling(seed=1), 40) == texts[1]
    assert len({str(text) for text in texts.values()}) == 4


def test_rows_of_one_prefix_get_texts_of_their_own() -> None:
    assert len({str(text) for text in continued(real_model(), [[0]] * 4, Sampling(), 40)}) == 4


@pytest.mark.parametrize("cell", [LSTM, LSTMCell])
def test_a_row_does_not_depend_on_the_others(cell: LayerFactory) -> None:
    model = real_model(cell)
    first = continued(model, [[1, 2, 3]], Sampling())
    for others in ([[4]], [[0, 1, 2, 3, 4, 5, 0, 1], [2]], [[5, 5, 5]] * 5):
        assert continued(model, [[1, 2, 3], *others], Sampling())[:1] == first


@pytest.mark.parametrize("cell", [LSTM, LSTMCell, SRU, partial(QRNN, window=2)])
def test_prefixes_of_different_lengths_equal_one_by_one(cell: LayerFactory) -> None:
    model = real_model(cell)
    prefixes = [[1], [2, 3, 4, 5, 0, 1, 2], [3, 3, 1], [0, 0]]
    alone = [continued(model, [prefix], Sampling(temperature=0))[0] for prefix in prefixes]
    assert continued(model, prefixes, Sampling(temperature=0)) == alone
    assert all(len(text) == 15 for text in alone)
    assert len({str(text) for text in alone}) > 1


def test_a_text_is_what_reading_it_anew_would_choose() -> None:
    """The state that is carried from token to token is that of reading the whole text."""
    model = real_model()
    (text,) = continued(model, [[1, 2]], Sampling(temperature=0))
    read = [1, 2, *text]
    with torch.no_grad():
        log_prob = model.head.log_prob(model(torch.tensor([read])).hidden)
    assert log_prob[0].argmax(dim=-1).tolist()[1:-1] == text


def test_a_text_ends_before_the_end_token_and_the_others_go_on() -> None:
    texts = generate(counting, [[0], [3], [4], [1, 2]], 4, Sampling(temperature=0), end=5)
    assert texts == [[1, 2, 3, 4], [4], [], [3, 4]]


def test_an_end_token_within_a_prefix_ends_nothing() -> None:
    assert generate(counting, [[5, 0], [5]], 3, Sampling(temperature=0), end=5) == [[1, 2, 3], [0, 1, 2]]


def test_banned_tokens_never_come() -> None:
    texts = generate(always(shuffled()), [[0]] * 500, 2, Sampling(), banned=ORDER[:2])
    assert {token for text in texts for token in text} == set(ORDER[2:])
    assert generate(always(shuffled()), [[0]], 2, Sampling(temperature=0), banned=[ORDER[0]]) == [[ORDER[1]] * 2]


def test_no_prefix_no_text() -> None:
    assert generate(counting, [], 3, Sampling()) == []


@pytest.mark.parametrize(
    ("prefixes", "length", "message"), [([[0]], 0, "at least 1 token, got length 0"), ([[0], []], 3, "has no token")]
)
def test_nothing_to_begin_with_or_to_do_is_refused(prefixes: list[list[int]], length: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(counting, prefixes, length, Sampling())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -1.0),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("seed", -1),
    ],
)
def test_settings_out_of_range_are_refused_with_their_value(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"sampling: .*{value}"):
        Sampling(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("temperature", [1e-3, 1e-300])
def test_a_temperature_near_0_is_nearly_greedy(temperature: float) -> None:
    log_prob = shuffled().log().float()[None]
    assert Sampling(temperature=temperature).choose(log_prob, torch.tensor([0.99])).item() == ORDER[0]
