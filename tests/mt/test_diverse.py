import math
from collections import Counter
from itertools import zip_longest

import pytest
import torch
from tiny_models import BOS, EOS, UNK, A, B, Tables, texts

from mt.beam import BeamSearch
from mt.diverse import DiverseBeamSearch
from mt.ranking import Ranking
from mt.step import Special, StepOutput


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("width", "groups"), [(6, 3), (6, 2), (4, 1)])
@pytest.mark.parametrize("patience", [None, 1])
def test_without_diversity_every_group_is_a_beam_of_its_own(width: int, groups: int, seed: int, patience: float | None) -> None:
    model = Tables.random(3, seed=seed)
    share = width // groups
    search = DiverseBeamSearch(width=width, n_best=width, groups=groups, diversity=0, patience=patience)
    diverse = model.search(search, [6, 4, 5])
    plain = model.search(BeamSearch(width=share, n_best=share, patience=patience), [6, 4, 5])
    for i in range(3):
        expected = sorted(zip(plain.finished[i].tolist(), plain.score[i].tolist(), strict=True), reverse=True)
        assert texts(diverse, i) == [text for text in texts(plain, i) for _ in range(groups)]
        found = zip(diverse.finished[i].tolist(), diverse.score[i].tolist(), strict=True)
        assert list(found) == [item for item in expected for _ in range(groups)]


@pytest.mark.parametrize("patience", [None, 1])
def test_one_group_is_a_beam_whatever_the_diversity(patience: float | None) -> None:
    model = Tables.random(3)
    diverse = model.search(DiverseBeamSearch(width=4, n_best=4, groups=1, diversity=3, patience=patience), 6)
    plain = model.search(BeamSearch(width=4, n_best=4, patience=patience), 6)
    assert torch.equal(diverse.tokens, plain.tokens)
    assert torch.equal(diverse.score, plain.score)


def test_groups_choose_one_after_another_by_hand() -> None:
    """From the best word to the second it is log 0.5/0.32 = 0.446, to the third log 0.5/0.18 = 1.022."""
    model = Tables.after_last({BOS: {A: 0.5, B: 0.32, UNK: 0.18}, A: {EOS: 1}, B: {EOS: 1}, UNK: {EOS: 1}})

    def chosen(groups: int, diversity: float) -> Counter[int]:
        search = DiverseBeamSearch(width=groups, n_best=groups, groups=groups, diversity=diversity, ranking=Ranking(alpha=0))
        return Counter(text[0] for text in texts(model.search(search, 4)))

    assert chosen(2, 0.44) == {A: 2}
    assert chosen(2, 0.45) == {A: 1, B: 1}
    # The third group finds A and B taken once each, and UNK too far away; then UNK near enough; the fourth takes A again.
    assert chosen(3, 0.45) == {A: 2, B: 1}
    assert chosen(3, 1.03) == {A: 1, B: 1, UNK: 1}
    assert chosen(4, 1.03) == {A: 2, B: 1, UNK: 1}
    # A is taken twice now: 2·0.45 away, more than B with 0.446 + 0.45.
    assert chosen(4, 0.45) == {A: 2, B: 2}


def test_the_score_is_that_of_the_model_and_the_count_is_not_carried_on() -> None:
    """The second group is driven to B, and has no reason to leave it for what it does at the next step."""
    model = Tables.after_last({BOS: {A: 0.6, B: 0.4}, A: {A: 0.9, EOS: 0.1}, B: {UNK: 0.8, EOS: 0.2}, UNK: {EOS: 1}})
    search = DiverseBeamSearch(width=2, n_best=2, groups=2, diversity=5, ranking=Ranking(alpha=0))
    output = model.search(search, 3)
    assert texts(output) == [(B, UNK, EOS), (A, A, A)]
    assert output.score[0].tolist() == pytest.approx([math.log(0.4 * 0.8), math.log(0.6 * 0.9 * 0.9)])


def test_to_end_at_the_same_step_is_no_likeness() -> None:
    """However strong the diversity, both groups end after one word; a penalty on <eos> would make the second go on."""
    model = Tables.after_last({BOS: {A: 0.6, B: 0.4}, A: {EOS: 0.9, UNK: 0.1}, B: {EOS: 0.9, UNK: 0.1}, UNK: {EOS: 1}})
    output = model.search(DiverseBeamSearch(width=2, n_best=2, groups=2, diversity=50), 5)
    assert texts(output) == [(A, EOS), (B, EOS)]


def test_hypotheses_that_do_not_exist_repel_nobody() -> None:
    """The first group has X and Y, and can go on from Y with Y alone: its other place is empty, whatever token stands there.

    The second has Z and X, and leaves Y after Z to the first. The ids are such that an empty place holds a word.
    """
    special, y, x, z = Special(beginning=0, end=EOS, padding=2), 3, 4, 5
    table = torch.zeros(6, 6, dtype=torch.float64)
    table[special.beginning, [x, y, z]] = torch.tensor([0.4, 0.35, 0.25], dtype=torch.float64)
    table[z, [x, y, z]] = torch.tensor([0.31, 0.4, 0.29], dtype=torch.float64)
    table[x, EOS] = table[y, y] = 1
    search = DiverseBeamSearch(width=4, n_best=4, groups=2, diversity=0.5, ranking=Ranking(alpha=0))
    output = search(lambda tokens, state: StepOutput(table[tokens].log(), state), None, 1, special, 2)
    assert set(texts(output)) == {(x, EOS), (y, y), (z, x)}


@pytest.mark.parametrize("seed", range(5))
def test_strong_diversity_lets_no_two_groups_say_the_same_at_once(seed: int) -> None:
    """Three groups of one hypothesis, and three words."""
    model = Tables.random(4, seed=seed)
    output = model.search(DiverseBeamSearch(width=3, n_best=3, groups=3, diversity=100), 6)
    for i in range(4):
        for at_once in zip_longest(*texts(output, i), fillvalue=EOS):
            words = [token for token in at_once if token != EOS]
            assert len(set(words)) == len(words)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 5, "groups": 2}, "groups=2, width=5"),
        ({"groups": 0}, "groups=0"),
        ({"diversity": -1.0}, "got -1.0"),
        ({"diversity": math.nan}, "got nan"),
        ({"n_best": 6}, "n_best=6"),
    ],
)
def test_groups_that_cannot_be_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DiverseBeamSearch(**settings)  # type: ignore[arg-type]
