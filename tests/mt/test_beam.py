import math
from collections.abc import Callable

import pytest
import torch
from tiny_models import BOS, EOS, PAD, UNK, VOCAB, WORDS, A, B, Score, Tables, brute_force, length_score, texts

from mt.beam import BeamSearch
from mt.constraints import Constraints
from mt.exhaustive import ExhaustiveSearch
from mt.ranking import Ranking
from mt.search import GreedySearch, SearchOutput
from mt.tree import Pool, TreeSearch

RANKINGS: list[tuple[Ranking, Score]] = [
    (Ranking(alpha=0), length_score(0)),
    (Ranking(alpha=0.75), length_score(0.75)),
    (Ranking(alpha=2), length_score(2)),
    (Ranking(alpha=0.6, offset=5), length_score(0.6, 5)),
    (Ranking(alpha=1, offset=5, coverage=0.2), length_score(1, 5, 0.2, 3)),
    (Ranking(alpha=0, coverage=2), length_score(0, 0, 2, 3)),
]
THREE = torch.tensor([3])


def fields(output: SearchOutput) -> tuple[object, ...]:
    return texts(output), output.score.tolist(), output.finished.tolist()


@pytest.mark.parametrize(("ranking", "score"), RANKINGS)
@pytest.mark.parametrize(
    "make",
    [
        lambda n_best, ranking: ExhaustiveSearch(n_best=n_best, ranking=ranking),
        lambda n_best, ranking: BeamSearch(n_best=n_best, ranking=ranking, width=200),
    ],
    ids=["exhaustive", "beam"],
)
@pytest.mark.parametrize("max_length", [1, 2, 4])
def test_a_search_that_drops_nothing_finds_what_brute_force_finds(
    ranking: Ranking, score: Score, make: Callable[[int, Ranking], TreeSearch], max_length: int
) -> None:
    """All translations in their order, those that are cut behind those that end; and the best few of them."""
    model = Tables.random(1, seed=1)
    expected = brute_force(model, max_length, score)
    for n_best in (1, 3, 200):
        output = model.search(make(n_best, ranking), max_length, source_lengths=THREE)
        assert texts(output) == [tokens for tokens, _ in expected[:n_best]]
        found = output.score[output.lengths > 0].tolist()
        assert found == pytest.approx([value for _, value in expected[:n_best]], abs=1e-12)


def test_every_score_normalises_for_length_as_its_paper_does() -> None:
    """log P = −6 over 4 tokens: −6/4^0.75; GNMT −6/((5 + 4)/6)^0.6."""
    assert -6 / Ranking().divisor(4) == pytest.approx(-6 / 2.8284271)
    assert -6 / Ranking(alpha=0.6, offset=5).divisor(4) == pytest.approx(-6 / 1.5**0.6)
    assert Ranking(alpha=0).divisor(4) == 1


def test_the_penalty_on_coverage_by_hand() -> None:
    """Coverage 0.5, 2, 0 and one position of padding: 0.2·(log 0.5 + log 1 + log of next to nothing)."""
    coverage = torch.tensor([[[0.5, 2.0, 0.25, 0.1]]], dtype=torch.float64)
    penalty = Ranking(coverage=0.2).penalty(coverage, THREE)
    assert penalty.item() == pytest.approx(0.2 * (math.log(0.5) + math.log(0.25)))
    assert Ranking(coverage=0.2).penalty(torch.zeros(1, 1, 1), torch.tensor([1])).isfinite().all()


def test_coverage_can_turn_the_ranking() -> None:
    """A is likelier and looks at one source word twice; B looks at both."""
    model = Tables.after_last({BOS: {A: 0.6, B: 0.4}, A: {EOS: 1}, B: {EOS: 1}})
    model.attention = torch.zeros(1, VOCAB, VOCAB, 2, dtype=torch.float64)
    model.attention[..., 0] = 1
    model.attention[:, :, B] = torch.tensor([0.0, 1.0], dtype=torch.float64)
    source_lengths = torch.tensor([2])
    plain = model.search(BeamSearch(width=2), 5)
    assert texts(plain) == [(A, EOS)]
    covering = model.search(BeamSearch(width=2, ranking=Ranking(coverage=0.1)), 5, source_lengths=source_lengths)
    assert texts(covering) == [(B, EOS)]
    assert covering.score.item() == pytest.approx(math.log(0.4) / 2**0.75)


@pytest.mark.parametrize("seed", range(20))
def test_a_beam_of_one_that_does_not_normalise_is_greedy(seed: int) -> None:
    model = Tables.random(3, seed=seed)
    beam = model.search(BeamSearch(width=1, ranking=Ranking(alpha=0)), 8)
    greedy = model.search(GreedySearch(), 8)
    for one, other in zip(beam, greedy, strict=True):
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


@pytest.mark.parametrize("ranking", [ranking for ranking, _ in RANKINGS])
def test_stopping_early_changes_nothing(ranking: Ranking, monkeypatch: pytest.MonkeyPatch) -> None:
    searches = [BeamSearch(width=3, n_best=n_best, ranking=ranking) for n_best in (1, 3)]
    models = [Tables.random(2, seed=seed, sharpness=2.5) for seed in range(8)]
    lengths = torch.tensor([3, 4])
    stopped = [model.search(search, [15, 9], source_lengths=lengths) for search in searches for model in models]
    calls = sum(model.calls for model in models)
    monkeypatch.setattr(Pool, "worst", lambda pool: torch.full_like(pool.score[:, 0], -torch.inf))
    patient = [model.search(search, [15, 9], source_lengths=lengths) for search in searches for model in models]
    assert [fields(output) for output in stopped] == [fields(output) for output in patient]
    assert sum(model.calls for model in models) - calls == 2 * 8 * 15
    if ranking.alpha < 2:  # with 2 a translation can hardly be too long
        assert calls < 0.9 * 2 * 8 * 15


def first_come(model: Tables, width: int, enough: int, max_length: int, score: Score) -> tuple[int, ...]:
    """A beam written out for one sentence, which stops at the first step with enough translations that have ended."""
    live: list[tuple[int, ...]] = [()]
    ended: list[tuple[int, ...]] = []
    while len(ended) < enough and len(live[0]) < max_length:
        tokens = [(*text, token) for text in live for token in (*WORDS, EOS)]
        tokens.sort(key=lambda text: -sum(model.log_probs(text)))
        ended += [text for text in tokens[:width] if text[-1] == EOS]
        live = [text for text in tokens if text[-1] != EOS][:width]
    return max(ended or live, key=lambda text: score(model, text, 0))


@pytest.mark.parametrize("patience", [0.3, 1, 2])
def test_patience_ends_a_sentence_with_its_first_translations(patience: float) -> None:
    hasty = 0
    for seed in range(20):
        model = Tables.random(1, seed=seed)
        found = texts(model.search(BeamSearch(width=3, patience=patience, ranking=Ranking(alpha=2)), 9))
        assert found == [first_come(model, 3, math.ceil(patience * 3), 9, length_score(2))]
        hasty += found != texts(model.search(BeamSearch(width=3, ranking=Ranking(alpha=2)), 9))
    assert hasty > 0


def test_patience_without_end_changes_nothing() -> None:
    models = [Tables.random(2, seed=seed) for seed in range(8)]
    for ranking, _ in RANKINGS:
        plain, patient = (BeamSearch(width=3, n_best=2, patience=patience, ranking=ranking) for patience in (None, 100))
        for model in models:
            expected, found = (model.search(search, [9, 5], source_lengths=torch.tensor([3, 4])) for search in (plain, patient))
            assert fields(found) == fields(expected)


def test_patience_waits_for_as_many_translations_as_are_wanted() -> None:
    """A ends at once, and with one translation of two nothing would be left for the second place."""
    model = Tables.after_last({BOS: {A: 0.55, B: 0.45}, A: {EOS: 0.6, UNK: 0.4}, B: {B: 0.9, EOS: 0.1}})
    assert texts(model.search(BeamSearch(width=2, patience=0.5, ranking=Ranking(alpha=1)), 12)) == [(A, EOS)]
    both = model.search(BeamSearch(width=2, n_best=2, patience=0.5, ranking=Ranking(alpha=1)), 12)
    assert len(texts(both)) == 2
    with pytest.raises(ValueError, match=r"patience is a multiple of the width above 0, or none to wait, got 0"):
        BeamSearch(patience=0)


def test_a_longer_translation_may_beat_the_first_that_ends() -> None:
    """A ends at once with 0.33; twelve tokens that begin with B have less, 0.016, and more for each token."""
    model = Tables.after_last({BOS: {A: 0.55, B: 0.45}, A: {EOS: 0.6, UNK: 0.4}, B: {B: 0.9, EOS: 0.1}})
    long = model.search(BeamSearch(width=2, ranking=Ranking(alpha=1)), 12)
    assert texts(long) == [(*[B] * 11, EOS)]
    short = model.search(BeamSearch(width=2, ranking=Ranking(alpha=0)), 12)
    assert texts(short) == [(A, EOS)]


def test_hypotheses_that_could_all_end_still_go_on() -> None:
    """Of both hypotheses <eos> is the best next token: keeping two candidates in all would leave nothing to go on."""
    model = Tables.after_last({BOS: {A: 0.5, B: 0.5}, A: {EOS: 0.6, A: 0.4}, B: {EOS: 0.6, B: 0.4}})
    output = model.search(BeamSearch(width=2, n_best=2, ranking=Ranking(alpha=3)), 4)
    assert {text[0] for text in texts(output)} == {A, B}
    assert all(len(text) == 4 for text in texts(output))


def test_a_hypothesis_that_has_ended_is_not_gone_on_with() -> None:
    """<eos> followed by <eos> would be certain here; so would be any word."""
    model = Tables.after_last({BOS: {EOS: 0.4, A: 0.6}, A: {EOS: 0.5, A: 0.5}, EOS: {EOS: 1}, PAD: {A: 1}})
    output = model.search(BeamSearch(width=4, n_best=4, ranking=Ranking(alpha=0)), 4)
    assert texts(output) == [(EOS,), (A, EOS), (A, A, EOS), (A, A, A, EOS)]


def test_an_unlikely_end_among_the_candidates_does_not_end_a_hypothesis() -> None:
    model = Tables.after_last({BOS: {A: 0.5, B: 0.4, EOS: 0.1}, A: {EOS: 1}, B: {EOS: 1}})
    assert texts(model.search(BeamSearch(width=2, n_best=2), 5)) == [(A, EOS), (B, EOS)]
    assert (EOS,) in texts(model.search(BeamSearch(width=3, n_best=3), 5))


def test_hypotheses_are_several_from_the_first_step_on() -> None:
    output = Tables.random(1).search(BeamSearch(width=3, n_best=3), 1)
    assert len({text[0] for text in texts(output)}) == 3


def test_what_was_cut_ranks_behind_what_ends() -> None:
    model = Tables.after_last({BOS: {A: 0.99, EOS: 0.01}, A: {A: 1}})
    output = model.search(BeamSearch(width=2, n_best=2), 3)
    assert texts(output) == [(EOS,), (A, A, A)]
    assert output.finished.tolist() == [[True, False]]
    assert output.score[0, 0] < output.score[0, 1]


def test_a_threshold_keeps_the_tokens_whose_probability_is_near_the_largest() -> None:
    """0.5 and 0.4 are within 0.15 of each other, 0.1 is not; and after A only <eos> is left, B keeps two."""
    model = Tables.after_last({BOS: {A: 0.5, B: 0.4, EOS: 0.1}, A: {EOS: 0.9, A: 0.1}, B: {EOS: 0.5, B: 0.375, A: 0.125}})
    alpha = Ranking(alpha=0)
    found = texts(model.search(BeamSearch(width=9, n_best=9, threshold=0.15, ranking=alpha), 3))
    assert set(found) == {(A, EOS), (B, EOS), (B, B, EOS), (B, B, B)}
    assert found[:2] == [(A, EOS), (B, EOS)]
    assert set(texts(model.search(BeamSearch(width=9, n_best=9, threshold=0.05, ranking=alpha), 3))) == {(A, EOS)}
    # The limit is not reached at exactly this difference (both are exact in binary).
    at_the_limit = texts(model.search(BeamSearch(width=9, n_best=9, threshold=0.125, ranking=alpha), 3))
    assert set(at_the_limit) == {(A, EOS), (B, EOS)}


def test_the_width_caps_the_branches_of_a_threshold() -> None:
    model = Tables.random(2)
    for width in (2, 3):
        wide, capped = BeamSearch(width=width, n_best=width), BeamSearch(width=width, n_best=width, threshold=1.0)
        assert fields(model.search(capped, 6)) == fields(model.search(wide, 6))


def test_pruned_tokens_take_no_place_in_the_beam() -> None:
    """After A only A is near enough, though B and the unknown word have 0.58·0.25 there and nothing after B has as much."""
    after = {A: {A: 0.5, B: 0.25, UNK: 0.25}, B: {UNK: 0.34, B: 0.33, EOS: 0.33}}
    model = Tables.after_last({BOS: {A: 0.58, B: 0.42}} | after)
    assert texts(model.search(BeamSearch(width=2, n_best=2, threshold=0.2), 2)) == [(A, A), (B, UNK)]


@pytest.mark.parametrize("threshold", [1e-9, 0.3])
def test_a_threshold_near_0_is_greedy(threshold: float) -> None:
    model = Tables.random(1, seed=4)
    pruned = model.search(BeamSearch(width=50, n_best=50, threshold=threshold), 5)
    greedy = texts(model.search(GreedySearch(), 5))
    assert greedy[0] in texts(pruned)
    assert (texts(pruned) == greedy) == (threshold < 0.1)


def test_exhaustive_search_refuses_a_space_that_is_too_large_with_its_size() -> None:
    """Three words in up to four positions: 1 + 3 + 9 + 27 that end, and 81 that are cut."""
    model = Tables.random(1)
    assert model.search(ExhaustiveSearch(limit=121), 4).finished.all()
    with pytest.raises(ValueError, match=r"3 words make about 10\^2 translations of up to 4 tokens, and the limit is 120"):
        model.search(ExhaustiveSearch(limit=120), 4)
    with pytest.raises(ValueError, match=r"about 10\^239"):
        model.search(ExhaustiveSearch(), 500)


@pytest.mark.parametrize(
    ("constraints", "max_length"),
    [(Constraints(min_length=3), 4), (Constraints(ban_unknown=True), 4), (Constraints(no_repeat_ngram=2, min_length=2), 5)],
)
def test_constraints_hold_for_the_best_translations(constraints: Constraints, max_length: int) -> None:
    def allowed(tokens: tuple[int, ...]) -> bool:
        n = constraints.no_repeat_ngram
        grams = [tokens[i : i + n] for i in range(len(tokens) - n + 1)] if n else []
        known = UNK not in tokens or not constraints.ban_unknown
        return len(tokens) >= constraints.min_length and known and len(set(grams)) == len(grams)

    model = Tables.random(1, seed=2)
    expected = [tokens for tokens, _ in brute_force(model, max_length, length_score(0.75), allowed=allowed)]
    searches = (ExhaustiveSearch(n_best=500, constraints=constraints), BeamSearch(width=500, n_best=500, constraints=constraints))
    for search in searches:
        assert texts(model.search(search, max_length)) == expected


@pytest.mark.parametrize("prefix", [[B], [A, UNK, A], [B, B, B, B]])
def test_a_prefix_is_forced_and_counts(prefix: list[int]) -> None:
    """Even one that is banned twice over."""
    model = Tables.random(1, seed=3)
    constraints = Constraints(ban_unknown=True)

    def allowed(tokens: tuple[int, ...]) -> bool:
        return list(tokens[: len(prefix)]) == prefix and UNK not in tokens[len(prefix) :]

    expected = brute_force(model, 4, length_score(0.75), allowed=allowed)
    output = model.search(BeamSearch(width=99, n_best=99, constraints=constraints), 4, prefixes=[prefix])
    assert texts(output) == [tokens for tokens, _ in expected]
    assert output.score[output.lengths > 0].tolist() == pytest.approx([value for _, value in expected], abs=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width=0"),
        ({"width": 3, "n_best": 4}, "n_best=4, width=3"),
        ({"n_best": 0}, "n_best .* got 0"),
        ({"threshold": 0.0}, "threshold .* got 0.0"),
        ({"threshold": 1.5}, "threshold .* got 1.5"),
    ],
)
def test_a_beam_that_cannot_be_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        BeamSearch(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["alpha", "offset", "coverage"])
@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_a_ranking_without_a_bound_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Ranking(**{name: value})


def test_a_penalty_on_coverage_says_what_it_lacks() -> None:
    model = Tables.random(1)
    search = BeamSearch(ranking=Ranking(coverage=0.2))
    with pytest.raises(ValueError, match=r"of 0\.2 needs the source_lengths"):
        model.search(search, 3)
    model.attention = None
    with pytest.raises(ValueError, match="a model with attention"):
        model.search(search, 3, source_lengths=THREE)
