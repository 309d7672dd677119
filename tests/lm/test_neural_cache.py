"""The neural cache: its distribution by hand and by a plain loop, over windows, lanes and precisions."""

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from lightning import Trainer
from readings import VOCAB, logits, nll_of, stream, text, tiny
from torch import Tensor

import lm.neural_cache
from datamodules.streams import CompleteStream, Window
from lm.evaluation import StaticEvaluation, Text
from lm.module import LanguageModel
from lm.neural_cache import NeuralCache, log_prob_in_cache

pytestmark = pytest.mark.usefixtures("seed")


def looped(model: LanguageModel, tokens: Tensor, theta: float, weight: float, window: int) -> list[float]:
    """p of every token after the first, one position and one entry of the cache after the other."""
    with torch.no_grad():
        output = model(tokens[None, :-1])
        p_model = logits(model, output.hidden)[0].softmax(dim=-1).double()
    states, words = output.raw[0].double(), tokens[1:]
    found = []
    for t in range(len(words)):
        p = p_model[t].clone()
        if t:
            held = range(max(0, t - window), t)
            similarity = [math.exp(theta * float(states[i] @ states[t])) for i in held]
            p *= 1 - weight
            for i, value in zip(held, similarity, strict=True):
                p[words[i]] += weight * value / sum(similarity)
        found.append(float(p[words[t]]))
    return found


def test_three_positions_by_hand() -> None:
    """States 1, 0 and 1, θ = ln 2: the third is 2 to 1 more like the first, after which came 5, than like the second."""
    states = torch.tensor([1.0, 0.0, 1.0]).view(1, 3, 1)
    for word, p in ((5, 2 / 3), (4, 1 / 3), (3, 0)):
        (found,) = log_prob_in_cache(states, torch.tensor([[5, 4, word]]), 1, math.log(2), 10).exp().tolist()
        assert found == pytest.approx([p])
    assert log_prob_in_cache(states, torch.tensor([[5, 4, 4]]), 1, math.log(2), 1).exp().tolist() == [[1]]  # the last one alone


def test_shares_are_mixed_by_hand() -> None:
    """Of 1/4 by the model and 1/2 by the cache, (3/4)·(1/4) + (1/4)·(1/2) = 5/16; of 0 by the cache, 3/16."""
    found = NeuralCache(weight=0.25).mixed(torch.tensor([4.0, 4.0]).log(), torch.tensor([0.5, 0.0]).log())
    assert (-found).exp().tolist() == pytest.approx([5 / 16, 3 / 16])


@pytest.mark.parametrize("window", [1, 7, 30, 61])
@pytest.mark.parametrize("steps", [1, 4, 61])
def test_windows_of_any_size_are_a_plain_loop_over_the_text(window: int, steps: int) -> None:
    model, tokens = tiny(), text(62)
    found = nll_of(NeuralCache(theta=0.8, weight=0.3, window=window), model, stream(tokens, steps))
    assert (-found[0]).exp().tolist() == pytest.approx(looped(model, tokens, 0.8, 0.3, window), rel=1e-4)


def test_products_in_several_blocks_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    states, words = torch.randn(2, 50, 4), torch.randint(VOCAB, (2, 50))
    whole = log_prob_in_cache(states, words, 30, 0.7, 12)
    for most in (1, 300):
        monkeypatch.setattr(lm.neural_cache, "SCORES_AT_ONCE", most)
        torch.testing.assert_close(log_prob_in_cache(states, words, 30, 0.7, 12), whole)


def test_every_lane_has_a_cache_of_its_own(make_trainer: Callable[..., Trainer]) -> None:
    """32 tokens in 3 lanes: parts that begin at 0, 11 and 22, with 11, 11 and 9 targets and two of padding."""
    model, tokens = tiny(evaluation=NeuralCache(theta=0.8, weight=0.3, window=5)), text(32)
    (metrics,) = make_trainer().test(model, CompleteStream(tokens.numpy(), 3, 4), verbose=False)
    parts = [looped(model, tokens[start : end + 1], 0.8, 0.3, 5) for start, end in pairwise((0, 11, 22, 31))]
    assert metrics["test/loss"] == pytest.approx(-sum(math.log(p) for part in parts for p in part) / 31, rel=1e-5)


def test_a_cache_of_no_weight_leaves_the_model_as_it_is() -> None:
    model, windows = tiny(), stream(text(40), 7)
    assert torch.equal(nll_of(NeuralCache(weight=0, window=5), model, windows), nll_of(StaticEvaluation(), model, windows))


def test_all_words_have_probability_1_together() -> None:
    model, (first, second) = tiny(), stream(text(21), 10)
    total = 0.0
    for word in range(VOCAB):
        last = Window(second.tokens, second.targets.clone())
        last.targets[:, -1] = word
        read = NeuralCache(theta=0.8, weight=0.6, window=15).begin(model, Text("test", 0, stream(text(21), 10)))
        with torch.no_grad():
            total += math.exp(-float([read(window) for window in (first, last)][1].nll[0, -1]))
    assert total == pytest.approx(1, rel=1e-5)


def test_in_half_precision_states_are_compared_in_fp32() -> None:
    states, words = (6 * torch.randn(1, 40, 64)).bfloat16().float(), torch.randint(VOCAB, (1, 40))
    with torch.autocast("cpu", torch.bfloat16):
        found = log_prob_in_cache(states, words, 30, 0.5, 20)
    torch.testing.assert_close(found, log_prob_in_cache(states, words, 30, 0.5, 20))


def test_in_half_precision_the_perplexity_is_nearly_the_same(make_trainer: Callable[..., Trainer]) -> None:
    model, windows = tiny(evaluation=NeuralCache(theta=0.8, weight=0.3, window=20)), stream(text(200), 8)
    exact, half = (
        make_trainer(precision=precision).test(model, windows, verbose=False)[0]["test/ppl"]
        for precision in ("32-true", "bf16-mixed")
    )
    assert half == pytest.approx(exact, rel=0.01)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match=r"NeuralCache: theta scales .* a number from 0, got -1"):
        NeuralCache(theta=-1)
    with pytest.raises(ValueError, match=r"NeuralCache: weight is the share of the cache, from 0 to below 1, got 1"):
        NeuralCache(weight=1)
    with pytest.raises(ValueError, match=r"NeuralCache: window counts positions from 1, got 0"):
        NeuralCache(window=0)
    with pytest.raises(ValueError, match=r"window of 11 positions is longer than the text of a lane, which has 10: set"):
        nll_of(NeuralCache(window=11), tiny(), stream(text(31), 7, lanes=3))
    with pytest.raises(ValueError, match=r"this model has carry=False and loss_at=every: leave model\.evaluation out"):
        nll_of(NeuralCache(window=3), tiny(carry=False), stream(text(30), 7))
