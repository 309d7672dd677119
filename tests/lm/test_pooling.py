"""Pooling over true lengths, at once or window by window, against the plain definitions."""

from functools import partial

import pytest
import torch
from torch import Tensor

from lm.layers import GRU, LSTM
from lm.network import RecurrentNetwork
from lm.pooling import Pooling, read_pooled

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 0, 0, 0, 0, 0], [8, 0, 0, 0, 0, 0, 0, 0], [1, 6, 1, 8, 0, 0, 0, 0]])
LENGTHS = torch.tensor([8, 3, 1, 4])


def network(bidirectional: bool = False, **settings: object) -> RecurrentNetwork:
    torch.manual_seed(0)
    make = partial(RecurrentNetwork, embedding_size=5, layer_sizes=[6, 4], cell=GRU, bidirectional=bidirectional)
    return make(10, **settings).double().eval()  # type: ignore[arg-type]


def by_hand(reader: RecurrentNetwork, pooling: Pooling, bidirectional: bool) -> Tensor:
    """Every text alone, without padding."""
    rows = []
    for tokens, length in zip(TOKENS, LENGTHS, strict=True):
        hidden = reader(tokens[None, :length]).hidden[0]
        last = torch.cat([hidden[-1, :4], hidden[0, 4:]]) if bidirectional else hidden[-1]
        parts = {"last": last, "mean": hidden.mean(dim=0), "max": hidden.max(dim=0).values}
        rows.append(torch.cat([last, parts["max"], parts["mean"]]) if pooling == "concatenated" else parts[pooling])
    return torch.stack(rows)


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "concatenated"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_is_that_of_each_text_alone(pooling: Pooling, bidirectional: bool) -> None:
    reader = network(bidirectional)
    found, _ = read_pooled(reader, TOKENS, LENGTHS, pooling)
    torch.testing.assert_close(found, by_hand(reader, pooling, bidirectional))


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "concatenated"])
@pytest.mark.parametrize("window", [1, 3, 4, 8, 20])
def test_windows_say_what_one_reading_says(pooling: Pooling, window: int) -> None:
    reader = network()
    found, output = read_pooled(reader, TOKENS, LENGTHS, pooling, window)
    torch.testing.assert_close(found, by_hand(reader, pooling, bidirectional=False))
    assert output.hidden.shape[1] == (8 - 1) % min(window, 8) + 1


def gradient(window: int | None, gradient_windows: int | None, pooling: Pooling = "mean") -> Tensor:
    """Of the first text's pooled states, by the embedding of each of its tokens: zero where none came."""
    reader = network()
    ids = torch.arange(8)[None]  # each token once
    reader.zero_grad()
    pooled, _ = read_pooled(reader, ids, torch.tensor([8]), pooling, window, gradient_windows)
    (found,) = torch.autograd.grad(pooled.square().sum(), list(reader.embedding.parameters()))
    return found[:8]


def test_the_gradient_ends_where_a_window_begins() -> None:
    last = gradient(3, None, "last")  # windows of 3, 3 and 2
    assert (last[:6] == 0).all()
    assert (last[6:] != 0).any(dim=1).all()
    assert (gradient(None, None, "last") != 0).any(dim=1).all()
    assert (gradient(3, None) != 0).any(dim=1).all()  # each window by its own states


def test_of_the_last_windows_alone_there_is_a_gradient() -> None:
    some = gradient(3, 2)
    assert (some[:3] == 0).all()
    torch.testing.assert_close(some[3:], gradient(3, None)[3:])


def test_the_truncated_gradient_is_that_of_states_cut_by_hand() -> None:
    reader = network()
    assert all(isinstance(layer, GRU) for layer in reader.layers)
    first = reader(TOKENS[:1, :4])
    cut = tuple(tuple(part.detach() for part in layer) for layer in first.state or ())
    hidden = torch.cat([first.hidden, reader(TOKENS[:1, 4:], cut).hidden], dim=1)
    weights = list(reader.parameters())
    expected = torch.autograd.grad(hidden.mean(dim=1).square().sum(), weights)
    pooled, _ = read_pooled(reader, TOKENS[:1], LENGTHS[:1], "mean", window=4)
    for found, wanted in zip(torch.autograd.grad(pooled.square().sum(), weights), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_states_of_two_parts_are_carried() -> None:
    torch.manual_seed(0)
    reader = RecurrentNetwork(10, embedding_size=5, layer_sizes=[6], cell=LSTM).eval()
    torch.testing.assert_close(read_pooled(reader, TOKENS, LENGTHS, "max", 2)[0], read_pooled(reader, TOKENS, LENGTHS, "max")[0])
