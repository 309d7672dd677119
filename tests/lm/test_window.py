"""The fixed-window model: that of the paper word for word, in any windows, and blind to what lies further back."""

from functools import partial

import pytest
import torch
from torch import nn

from lm.module import LanguageModel
from lm.sampling import Sampling, generate
from lm.window import FixedWindow

BATCH, TIME, INPUT, HIDDEN = 3, 7, 4, 5

pytestmark = pytest.mark.usefixtures("seed")


@pytest.mark.parametrize("words", [1, 2, 4, 9])
@pytest.mark.parametrize("direct", [False, True])
def test_each_step_is_the_paper_s_equation(words: int, direct: bool) -> None:
    layer, x = FixedWindow(INPUT, HIDDEN, words, direct), torch.randn(BATCH, TIME, INPUT)
    said, _ = layer(x)
    assert said.shape == (BATCH, TIME, layer.output_size)
    for t in range(TIME):
        window = [x[:, s] if s >= 0 else torch.zeros(BATCH, INPUT) for s in range(t - words + 1, t + 1)]
        h = (torch.cat(window, dim=1) @ layer.hidden.weight.T + layer.hidden.bias).tanh()
        expected = torch.cat([h, *window], dim=1) if direct else h
        torch.testing.assert_close(said[:, t], expected)


@pytest.mark.parametrize("words", [1, 2, 4, 9])
def test_windows_steps_and_the_whole_are_one(words: int) -> None:
    layer, x = FixedWindow(INPUT, HIDDEN, words, direct=True), torch.randn(BATCH, TIME, INPUT)
    whole, after = layer(x)
    first, between = layer(x[:, :2])
    second, end = layer(x[:, 2:], between)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(end, after)
    state = layer.first_state(x)
    for t in range(TIME):
        state = layer.step(layer.project(x[:, t]), state)
        torch.testing.assert_close(state[0], whole[:, t])
    torch.testing.assert_close([part.unsqueeze(0) for part in state], list(after))


def test_words_before_the_window_make_no_difference_and_those_in_it_do() -> None:
    model = LanguageModel(9, 6, [8], partial(FixedWindow, words=3)).eval()
    tokens = torch.randint(9, (1, 8))
    for place in range(8):
        other = tokens.clone()
        other[0, place] = (other[0, place] + 1) % 9
        same = torch.equal(model(tokens).hidden[0, -1], model(other).hidden[0, -1])
        assert same == (place < 5)


def test_it_learns_and_writes_what_a_window_decides() -> None:
    """In this text two letters decide the next one, and one does not."""
    text = torch.tensor([0, 1, 2, 0, 2, 1, 3] * 30)
    model = LanguageModel(4, 8, [16], partial(FixedWindow, words=2, direct=True))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model.head.log_prob(model(text[None, :-1]).hidden)[0], text[1:])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert loss < 0.1
    (written,) = generate(model.next_token, [[0, 1]], 12, Sampling(temperature=0))
    assert written == text[2:14].tolist()


def test_a_window_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="FixedWindow: a window holds at least 1 word, got 0"):
        FixedWindow(INPUT, HIDDEN, words=0)
