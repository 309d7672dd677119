"""Windows of varying length: how long they are, and that nothing else changes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from datamodules.streams import Place, Window
from datamodules.variable_stream import VariableStream


def counting(length: int) -> np.ndarray:
    """A corpus whose tokens are their own positions."""
    return np.arange(length, dtype=np.uint32)


def epoch(stream: VariableStream, number: int) -> list[Window]:
    stream.set_epoch(number)
    return list(stream)


def lengths(stream: VariableStream, number: int = 0) -> list[int]:
    return [window.tokens.shape[1] for window in epoch(stream, number)]


def test_lengths_are_those_of_the_paper() -> None:
    """Of 70 with the probability .95, else of 35, and 5 tokens off; what is cut off of a normal number is half a token."""
    drawn = VariableStream(counting(2_000_000), 1, 70).lengths[:-1]
    full = drawn[drawn > 52]
    assert len(full) / len(drawn) == pytest.approx(0.95, abs=0.005)
    assert full.mean() == pytest.approx(69.5, abs=0.1)
    assert full.std() == pytest.approx(5, abs=0.1)
    assert drawn[drawn <= 52].mean() == pytest.approx(34.5, abs=0.5)
    assert drawn.max() <= 70 + 4 * 5


def test_lengths_have_bounds() -> None:
    drawn = VariableStream(counting(3_000_000), 1, 10, full=0.5, deviation=8.0, shortest=4).lengths
    assert drawn.min() == 4
    assert drawn.max() == 10 + 4 * 8


def test_settings_of_no_chance_leave_windows_of_one_length() -> None:
    """35 tokens in lanes of 17: the last window is cut to two."""
    stream = VariableStream(counting(35), 2, 5, full=1.0, deviation=0.0, shortest=2)
    assert sorted(lengths(stream)) == [2, 5, 5, 5]
    assert sorted(lengths(VariableStream(counting(35), 2, 5, full=1.0, deviation=0.0, shortest=3))) == [5, 5, 5]


def test_every_epoch_has_the_same_lengths_in_another_order() -> None:
    stream = VariableStream(counting(5000), 2, 20)
    orders = [lengths(stream, number) for number in range(4)]
    assert len({tuple(order) for order in orders}) == 4
    assert len({tuple(sorted(order)) for order in orders}) == 1
    others = lengths(VariableStream(counting(5000), 2, 20, Place(seed=1)))
    assert sorted(others) != sorted(orders[0])


def test_every_row_continues_itself_in_the_next_window() -> None:
    stream = VariableStream(counting(1000), 4, 12)
    assert stream.contiguous
    for before, after in pairwise(epoch(stream, 3)):
        assert torch.equal(before.targets[:, -1], after.tokens[:, 0])
        assert torch.equal(before.tokens[:, -1] + 1, after.tokens[:, 0])


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_lane_is_read_to_its_end_but_for_what_makes_no_window(lanes: int) -> None:
    for length in range(60, 160):
        read = torch.cat([window.tokens for window in epoch(VariableStream(counting(length), lanes, 11), 1)], dim=1)
        lane = (length - 1) // lanes
        assert 0 <= lane - read.shape[1] < 5
        assert torch.equal(read, torch.arange(lanes)[:, None] * lane + torch.arange(read.shape[1]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"full is a probability, and deviation not negative, got full=1\.5, deviation=5\.0"):
        VariableStream(counting(100), 2, 10, full=1.5)
    with pytest.raises(ValueError, match="shortest counts tokens from 1 to the 4 of a window, got 5"):
        VariableStream(counting(100), 2, 4)
    with pytest.raises(ValueError, match=r"20 lanes of windows of at least 5 steps need at least 101 tokens, and .* has 100"):
        VariableStream(counting(100), 20, 10)
    assert lengths(VariableStream(counting(101), 20, 10)) == [5]
