"""LanguageData: from lines to the windows of a run."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import torch

from datamodules.language import LanguageData
from datamodules.recipes import Characters, Words
from datamodules.sources import Split
from datamodules.streams import CompleteStream, SequentialStream, SlidingStream, Window

LINES = ["a b c d e", "f g", "", "h i j k l m n o p q r s t u v w x y z"] * 4
MakeData = Callable[..., LanguageData]


@pytest.fixture
def data(make_data: MakeData) -> LanguageData:
    return make_data(LINES, ["a b z y", "c"], ["x"], lanes=2, steps=5)


def text(data: LanguageData, ids: Sequence[int] | np.ndarray) -> str:
    return " ".join(data.tokenizer.tokens([int(i) for i in ids]))


def predicted(data: LanguageData, windows: Sequence[Window]) -> str:
    """The targets of windows of one lane, in order."""
    return text(data, torch.cat([window.targets[0] for window in windows]).tolist())


def test_training_windows_hold_the_training_text(data: LanguageData) -> None:
    data.setup("fit")
    windows = list(data.train_dataloader())
    flat = " ".join(LINES).split()
    assert len(windows) == len(data.train_dataloader()) == (len(flat) + len(LINES) - 5) // 2 // 5
    whole = text(data, data.tokens("train"))
    assert whole.replace(" <eos>", "").split() == flat
    for window in windows:
        for row, target in zip(window.tokens, window.targets, strict=True):
            assert f"{text(data, row.tolist())} {text(data, target.tolist()[-1:])}" in whole


def test_evaluation_predicts_every_token_once(make_data: MakeData) -> None:
    data = make_data(LINES, ["a b z y", "c"], ["x"], lanes=2, steps=5, evaluation_lanes=1)
    (validation,), (test,) = data.val_dataloader(), data.test_dataloader()
    assert isinstance(validation, CompleteStream)
    assert predicted(data, list(validation)) == "b z y <eos> c <eos>"
    assert predicted(data, list(test)) == "<eos>"
    assert predicted(data, list(data.predict_dataloader()[0])) == "<eos>"


def test_evaluation_has_as_many_lanes_as_training_unless_told(make_data: MakeData, data: LanguageData) -> None:
    assert data.val_dataloader()[0].lanes == 2
    assert make_data(LINES, ["a b"], evaluation_lanes=1).val_dataloader()[0].lanes == 1


def test_without_a_split_there_is_no_stream_and_prediction_takes_what_there_is(make_data: MakeData) -> None:
    data = make_data(LINES, ["a b"])
    assert data.test_dataloader() == []
    assert len(data.val_dataloader()) == len(data.predict_dataloader()) == 1
    assert make_data(LINES).predict_dataloader() == []


@pytest.mark.parametrize(("split", "first"), [("train", "b"), ("validation", "b"), ("test", "y"), (None, "y")])
def test_any_split_can_be_predicted(make_data: MakeData, split: Split | None, first: str) -> None:
    data = make_data(["a b x y", "c d"] * 9, ["a b"], ["x y"], predict_split=split, evaluation_lanes=1)
    (windows,) = data.predict_dataloader()
    assert predicted(data, list(windows)).split()[0] == first


def test_a_split_that_is_not_there_cannot_be_predicted(make_data: MakeData) -> None:
    with pytest.raises(ValueError, match=r"there is no test split, but \['train', 'validation'\]"):
        make_data(LINES, ["a b"], predict_split="test").predict_dataloader()


def test_from_the_right_every_split_is_reversed(make_data: MakeData) -> None:
    make = partial(make_data, LINES, ["a b z y", "c"], ["x"], lanes=2, steps=5, evaluation_lanes=1)
    right, left = make(direction="right_to_left"), make()
    for split in ("train", "validation", "test"):
        assert right.tokens(split).tolist() == left.tokens(split).tolist()[::-1]
    assert predicted(right, list(right.val_dataloader()[0])) == "c <eos> y z b a"
    right.setup("fit")


def test_max_tokens_keeps_the_first_of_the_training_text_alone(make_data: MakeData) -> None:
    whole = make_data(LINES, ["a b z y", "c"], lanes=2, steps=5)
    data = make_data(LINES, ["a b z y", "c"], lanes=2, steps=5, max_tokens=30)
    assert data.tokens("train").tolist() == whole.tokens("train").tolist()[:30]
    assert len(data.tokens("validation")) == 7
    backwards = make_data(LINES, max_tokens=30, direction="right_to_left")
    assert backwards.tokens("train").tolist() == whole.tokens("train").tolist()[:30][::-1]
    assert data.vocab_size == whole.vocab_size


def test_tokenizer_and_line_end_are_those_asked_for(make_data: MakeData) -> None:
    data = make_data(["ab", "ba"], tokenizer=Characters(), line_end=None, lanes=1, steps=1)
    assert "".join(data.tokenizer.tokens(data.tokens("train").tolist())) == "abba"
    assert data.vocab_size == len(data.tokenizer) == 3
    assert make_data(["a a b"], tokenizer=Words(min_frequency=2)).vocab_size == 3


def test_the_stream_is_the_one_asked_for_and_says_whether_a_state_may_be_carried(make_data: MakeData) -> None:
    sliding = make_data(LINES, stream=partial(SlidingStream, stride=1), lanes=2, steps=5)
    assert isinstance(sliding.train_dataloader(), SlidingStream)
    assert not sliding.contiguous
    sequential = make_data(LINES, lanes=2, steps=5)
    assert isinstance(sequential.train_dataloader(), SequentialStream)
    assert sequential.contiguous


def test_the_stream_stays_the_same_object_so_that_its_position_is_that_of_the_run(data: LanguageData) -> None:
    assert data.train_dataloader() is data.train_dataloader()


def test_the_seed_decides_the_offsets(make_data: MakeData) -> None:
    def first(seed: int) -> list[list[list[int]]]:
        stream = make_data(LINES, lanes=2, steps=9, seed=seed).train_dataloader()
        starts = []
        for epoch in range(5):
            stream.set_epoch(epoch)
            starts.append(next(iter(stream)).tokens.tolist())
        return starts

    assert first(1) == first(1)
    assert first(1) != first(2)


def test_a_text_that_is_too_short_is_refused_before_anything_runs(make_data: MakeData) -> None:
    data = make_data(["a b c"], lanes=20, steps=35)
    with pytest.raises(ValueError, match="20 lanes of 35 steps need at least 735 tokens, and the corpus has 4: use fewer lanes"):
        data.setup("fit")
    data.setup("test")
