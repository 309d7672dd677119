import pytest
import torch
from tiny_models import BOS, EOS, PAD, SPECIAL, UNK, VOCAB, A, B
from torch import Tensor

from mt.constraints import Constraints, block_repeats

NONE_FORCED = torch.full((1, 0), -1)


def banned(constraints: Constraints, history: list[int], forced: Tensor = NONE_FORCED) -> set[int]:
    """The tokens that one hypothesis may not go on with."""
    log_prob = torch.full((1, 1, VOCAB), -1.0)
    constraints.apply(log_prob, len(history), SPECIAL, forced, lambda: torch.tensor([[history]]))
    return {token for token, value in enumerate(log_prob[0, 0].tolist()) if value == -torch.inf}


def test_beginning_and_padding_are_never_written() -> None:
    assert banned(Constraints(), []) == {BOS, PAD}


def test_the_minimum_length_counts_the_end() -> None:
    three = Constraints(min_length=3)
    assert [EOS in banned(three, [A] * length) for length in range(4)] == [True, True, False, False]
    assert EOS not in banned(Constraints(min_length=1), [])


def test_the_unknown_word_is_banned() -> None:
    assert banned(Constraints(ban_unknown=True), [A]) == {BOS, PAD, UNK}


@pytest.mark.parametrize(
    ("size", "history", "repeats"),
    [
        (1, [], set()),
        (1, [A, B], {A, B}),
        (2, [A], set()),
        (2, [A, B], set()),
        (2, [A, B, A], {B}),
        (2, [A, A], {A}),
        (2, [A, B, A, UNK, A], {B, UNK}),
        (3, [A, B, A, B], {A}),
        (3, [A, B, UNK, A, B], {UNK}),
        (3, [A, A, A], {A}),
        (3, [A, B], set()),
    ],
)
def test_no_ngram_comes_twice(size: int, history: list[int], repeats: set[int]) -> None:
    assert banned(Constraints(no_repeat_ngram=size), history) - {BOS, PAD} == repeats


def test_each_hypothesis_has_a_history_of_its_own() -> None:
    log_prob = torch.zeros(2, 2, VOCAB)
    history = torch.tensor([[[A, B, A], [A, A, B]], [[B, B, B], [UNK, A, UNK]]])
    block_repeats(log_prob, history, 2, PAD)
    found = [[set(row.isneginf().nonzero().flatten().tolist()) - {PAD} for row in sentence] for sentence in log_prob]
    assert found == [[{B}, set()], [{B}, {A}]]


def test_a_forced_token_keeps_its_log_probability_whatever_is_banned() -> None:
    log_prob = torch.arange(-12.0, 0).view(2, 1, VOCAB)
    constraints = Constraints(ban_unknown=True, no_repeat_ngram=1)
    forced = torch.tensor([[A, UNK], [B, -1]])
    constraints.apply(log_prob, 1, SPECIAL, forced, lambda: torch.tensor([[[A]], [[B]]]))
    inf = torch.inf
    assert log_prob[0, 0].tolist() == [-inf, -inf, -inf, -12 + UNK, -inf, -inf]
    assert log_prob[1, 0].tolist() == [-inf, -6 + EOS, -inf, -inf, -6 + A, -inf]


@pytest.mark.parametrize("name", ["min_length", "no_repeat_ngram"])
def test_negative_sizes_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1"):
        Constraints(**{name: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("least", "most"), [(0, 0), (5, 4)])
def test_a_maximum_length_that_leaves_no_translation_is_refused(least: int, most: int) -> None:
    with pytest.raises(ValueError, match=f"max_length={most}, min_length={least}"):
        Constraints(min_length=least, max_length=most)
