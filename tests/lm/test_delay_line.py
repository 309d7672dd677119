"""A window of inputs as a recurrent layer."""

import pytest
import torch

from lm.delay_line import DelayLine


def test_it_says_its_last_inputs_the_oldest_first() -> None:
    x = torch.tensor([[[1.0], [2.0], [3.0]]])
    said, (state,) = DelayLine(1, 2)(x)
    assert said.tolist() == [[[0, 1], [1, 2], [2, 3]]]
    assert state.tolist() == [[[2, 3]]]


def test_several_features_stay_together() -> None:
    said, _ = DelayLine(2, 4)(torch.tensor([[[1.0, 10.0], [2.0, 20.0]]]))
    assert said.tolist() == [[[0, 0, 1, 10], [1, 10, 2, 20]]]


def test_parts_of_a_series_with_the_state_carried_are_the_series() -> None:
    layer, x = DelayLine(2, 6), torch.randn(3, 7, 2)
    whole, end = layer(x)
    first, state = layer(x[:, :2])
    second, last = layer(x[:, 2:], state)
    assert torch.equal(torch.cat([first, second], dim=1), whole)
    assert torch.equal(last[0], end[0])


def test_nothing_behind_a_length_is_read() -> None:
    layer, x = DelayLine(1, 3), torch.randn(2, 5, 1)
    said, (state,) = layer(x, lengths=torch.tensor([2, 5]))
    assert not said[0, 2:].any()
    assert torch.equal(state[0, 0], layer(x[:1, :2])[1][0][0, 0])


def test_a_part_of_an_input_is_refused() -> None:
    with pytest.raises(ValueError, match="5 features are no whole number of inputs of 2"):
        DelayLine(2, 5)
