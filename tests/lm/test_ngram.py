"""NGramModel: counts, smoothings against plain ones and by hand, and what a Trainer and a checkpoint do with it."""

import math
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, Trainer
from plain_ngrams import counted, kneser_ney, laplace
from saving import SaveAt
from torch import Tensor
from two_ranks import bare_trainer, on_two_ranks

from callbacks import HiddenStateReset, RNNRegularization
from callbacks.learning_rate_finder import LearningRateFinder
from datamodules import LanguageData
from datamodules.recipes import Words
from datamodules.sources import Files
from datamodules.streams import CompleteStream, SlidingStream
from lm import Sampling, TextModel
from lm.ngram import NGramModel
from lm.ngram_counts import NGramCounts
from lm.smoothing import KneserNey, Laplace, RelativeFrequency, Smoothing

MakeTrainer = Callable[..., Trainer]
MakeData = Callable[..., LanguageData]
INFINITY = math.inf


def fitted(text: list[int], order: int, smoothing: Smoothing, vocab_size: int, lanes: int = 1, steps: int = 7) -> NGramModel:
    model = NGramModel(vocab_size, order, smoothing)
    stream = CompleteStream(np.array(text), lanes, steps)
    bare_trainer(1, max_epochs=1, callbacks=[HiddenStateReset()]).fit(model, stream)
    return model


def random_text(seed: int, vocab_size: int, length: int) -> list[int]:
    """Ids, some of them much more often than others."""
    random.seed(seed)
    return [int(vocab_size * random.random() ** 2) for _ in range(length)]


def after(model: NGramModel, context: list[int]) -> Tensor:
    """The distribution after some tokens, `(vocab,)`."""
    read = torch.cat([model.no_past(torch.zeros(1, 1, dtype=torch.long)), torch.tensor([context]).long()], dim=1)
    return model.distribution(model.state_after(read)[0][0][0])[0]


SMOOTHINGS: list[Callable[[int], Smoothing]] = [
    lambda _: RelativeFrequency(),
    lambda order: Laplace([0.5 * 3**k for k in range(order)]),
    lambda order: Laplace([INFINITY, *[0.0] * (order - 1)]),
    lambda _: KneserNey(),
    lambda order: KneserNey([0.0, *[0.3] * (order - 1)]),
]


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_probabilities_sum_to_one_after_any_context(smoothing: Callable[[int], Smoothing]) -> None:
    for seed in range(25):
        random.seed(seed)
        order, vocab_size = random.randint(1, 5), random.randint(2, 40)
        text = random_text(seed, vocab_size - 1, random.randint(order + 1, 400))  # the last id is never seen
        model = fitted(text, order, smoothing(order), vocab_size, lanes=1, steps=random.randint(1, 400))
        contexts = [text[i : i + order] for i in range(5)] + [random_text(i, vocab_size, order) for i in range(5)] + [[]]
        for context in contexts:
            distribution = after(model, context)
            assert float(distribution.sum()) == pytest.approx(1, abs=1e-12)
            assert float(distribution.min()) >= 0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_kneser_ney_is_that_of_its_definition(order: int) -> None:
    for seed, (vocab_size, length) in enumerate([(6, 400), (25, 400), (4, 12)]):
        text = random_text(seed, vocab_size - 1, length)
        model = fitted(text, order, KneserNey(), vocab_size, steps=50)
        for context in [text[i : i + order - 1] for i in range(0, len(text) - order, length // 6)] + [
            [vocab_size - 1] * (order - 1)
        ]:
            expected = [kneser_ney([text], context, token, vocab_size, order) for token in range(vocab_size)]
            assert after(model, context).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("epsilons", [[2.0], [0.0, 0.0], [1.0, 5.0, 0.5], [INFINITY, 3.0], [0.5, 0.0, 20.0]])
def test_laplace_is_that_of_the_notes(epsilons: list[float]) -> None:
    text = random_text(1, 7, 200)
    order = len(epsilons)
    model = fitted(text, order, Laplace(epsilons), 8)
    for context in ([], [0], [0, 0], [1, 0], [0, 6], [7, 7]):
        context = context[len(context) - order + 1 :] if order > 1 else []
        expected = [laplace([text], context, token, 8, epsilons) for token in range(8)]
        assert after(model, context).tolist() == pytest.approx(expected, rel=1e-9)


def test_laplace_by_hand() -> None:
    """Targets b, a, b, c: P(b) = (2 + 1/4·1)/(4 + 1) = .45; after a, once seen before b and twice in all: (2 + 3·.45)/(2 + 3)."""
    model = fitted([0, 1, 0, 1, 2], 2, Laplace([1.0, 3.0]), 4)
    assert after(model, []).tolist() == pytest.approx([1.25 / 5, 2.25 / 5, 1.25 / 5, 0.25 / 5])
    assert after(model, [0]).tolist() == pytest.approx([0.75 / 5, (2 + 1.35) / 5, 0.75 / 5, 0.15 / 5])


def test_infinite_epsilons_are_uniform_and_none_is_the_relative_frequency() -> None:
    text = [0, 1, 0, 1, 0, 2]
    assert after(fitted(text, 2, Laplace([INFINITY, INFINITY]), 4), [0]).tolist() == [0.25] * 4
    for smoothing in (Laplace([0.0, 0.0]), RelativeFrequency()):
        model = fitted(text, 2, smoothing, 4)
        assert after(model, [0]).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
        assert after(model, [2]).tolist() == pytest.approx([0.4, 0.4, 0.2, 0])  # never seen: as after nothing


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize("steps", [1, 5, 1000])
def test_counts_are_those_of_each_lane_whatever_the_windows(lanes: int, steps: int) -> None:
    text = random_text(2, 5, 200)
    model = fitted(text, 4, RelativeFrequency(), 5, lanes, steps)
    part = -(-(len(text) - 1) // lanes)
    texts = [text[start : start + part + 1] for start in range(0, len(text) - 1, part)]
    for length in range(1, 5):
        expected = counted(texts, length)
        counts = model.counts.levels[length - 1].counts
        n_grams = model.counts.tokens(length, torch.arange(len(counts)))
        found = {tuple(n_gram): count for n_gram, count in zip(n_grams.tolist(), counts.tolist(), strict=True) if count}
        assert found == expected


def test_long_n_grams_of_a_large_vocabulary_overflow_nothing() -> None:
    """Eight tokens of 200,000 would take 141 bits."""
    text = torch.tensor([[199_999 - i % 11 for i in range(40)]])
    counts = NGramCounts.of(text, 39, 8, 200_000)
    assert len(set(map(tuple, counts.tokens(8, torch.arange(11)).tolist()))) == 11
    assert set(map(tuple, text.unfold(1, 8, 1)[0].tolist())) == set(map(tuple, counts.tokens(8, torch.arange(11)).tolist()))
    assert counts.levels[7].counts.sum() == 33


def test_a_text_in_windows_has_the_perplexity_of_its_tokens_one_by_one(make_trainer: MakeTrainer) -> None:
    text, held_out = random_text(3, 9, 300), random_text(4, 10, 80)
    model = fitted(text, 3, KneserNey(), 10)
    nll = [-math.log(kneser_ney([text], held_out[max(0, i - 2) : i], held_out[i], 10, 3)) for i in range(2, len(held_out))]
    nll.append(-math.log(float(after(model, held_out[:1])[held_out[1]])))
    for steps in (1, 6, 500):
        (metrics,) = make_trainer().test(model, CompleteStream(np.array(held_out), 1, steps), verbose=False)
        assert metrics["test/loss"] == pytest.approx(sum(nll) / len(nll), rel=1e-6)
        assert metrics["test/ppl"] == pytest.approx(math.exp(metrics["test/loss"]), rel=1e-5)
    # In lanes with padding, which is no token.
    (metrics,) = make_trainer().test(model, CompleteStream(np.array(held_out), 3, 4), verbose=False)
    assert metrics["test/loss"] == pytest.approx(sum(nll) / len(nll), rel=0.2)


def test_what_is_impossible_makes_the_perplexity_infinite(make_trainer: MakeTrainer) -> None:
    model = fitted([0, 1, 0, 1], 2, RelativeFrequency(), 3)
    (metrics,) = make_trainer().test(model, CompleteStream(np.array([0, 1, 2, 0, 1, 0, 1, 0]), 3, 4), verbose=False)
    assert metrics["test/ppl"] == INFINITY


LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the horse sees a cat and a bird ."] * 3


def trained(make_data: MakeData, make_trainer: MakeTrainer, **settings: Any) -> NGramModel:
    data = make_data(LINES, LINES[:2], lanes=1, steps=1000, stream=CompleteStream)
    model = NGramModel(data.vocab_size, **settings)
    make_trainer(max_epochs=1).fit(model, data)
    return model


def test_it_writes_what_it_has_read(make_data: MakeData, make_trainer: MakeTrainer) -> None:
    model = trained(make_data, make_trainer, order=5, smoothing=RelativeFrequency())
    greedy = Sampling(temperature=0)
    assert model.generate(["a bird", "the cat"], 20, greedy) == ["a bird likes a cat .", "the cat sees the dog ."]
    texts = model.generate([""] * 20, 20, Sampling(seed=3))
    assert len(set(texts)) > 2
    assert set(texts) <= set(LINES)  # five words decide which of the lines it is


def test_shorter_contexts_write_more(make_data: MakeData, make_trainer: MakeTrainer) -> None:
    model = trained(make_data, make_trainer, order=2, smoothing=RelativeFrequency())
    texts = model.generate([""] * 50, 20)
    words = {pair for line in LINES for pair in pairwise(line.split())}
    assert not set(texts) <= set(LINES)
    assert all(pair in words for text in texts for pair in pairwise(text.split()))


def test_it_weighs_texts(make_data: MakeData, make_trainer: MakeTrainer) -> None:
    model = trained(make_data, make_trainer, order=2, smoothing=Laplace([1.0, 1.0]))
    known, shuffled, unknown = model.score(["the cat sees the dog .", "cat dog . the the sees", "xyz"])
    assert known.log_prob > shuffled.log_prob
    assert known.tokens == ["the", "cat", "sees", "the", "dog", ".", "<eos>"]
    assert unknown.tokens == ["<unk>", "<eos>"]
    end = model.start_token()
    assert model.tokenizer is not None
    ids = [end, *model.tokenizer.encode("the cat sees the dog ."), end]
    for (context, token), nll in zip(pairwise(ids), known.nll.tolist(), strict=True):
        assert math.exp(-nll) == pytest.approx(float(after(model, [context])[token]))  # type: ignore[list-item]


def test_predictions_are_the_most_probable_tokens(make_trainer: MakeTrainer) -> None:
    text, held_out = random_text(5, 9, 200), random_text(6, 9, 50)
    for order in (1, 2, 4):
        model = fitted(text, order, KneserNey(), 9)
        predictions: Any = make_trainer().predict(model, CompleteStream(np.array(held_out), 1, 100))
        (prediction,) = predictions
        assert prediction.columns == ("target", "predicted")
        for i, (target, predicted) in enumerate(prediction.rows, start=1):
            assert target == str(held_out[i])
            assert int(predicted) == int(after(model, held_out[max(0, i - order + 1) : i]).argmax())


def test_a_checkpoint_stands_alone_and_may_be_read_under_another_smoothing(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    data = make_data(LINES, LINES[:2], lanes=1, steps=8, stream=CompleteStream)
    model, trainer = NGramModel(data.vocab_size, 3, Laplace([1.0, 2.0, 3.0])), make_trainer(max_epochs=1)
    trainer.fit(model, data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = TextModel.load_from_checkpoint(tmp_path / "model.ckpt")
    assert isinstance(loaded, NGramModel)
    assert loaded.smoothing == model.smoothing
    assert [found.log_prob for found in loaded.score(LINES[:4])] == [found.log_prob for found in model.score(LINES[:4])]
    assert loaded.generate("the", 10) == model.generate("the", 10)
    other = NGramModel.load_from_checkpoint(tmp_path / "model.ckpt", smoothing=KneserNey())
    fresh = NGramModel(data.vocab_size, 3, KneserNey())
    make_trainer(max_epochs=1).fit(fresh, data)
    assert [found.log_prob for found in other.score(LINES)] == [found.log_prob for found in fresh.score(LINES)]
    (metrics,) = make_trainer().validate(NGramModel(data.vocab_size, 3), data, ckpt_path=tmp_path / "model.ckpt", verbose=False)
    assert metrics["val/ppl"] == pytest.approx(make_trainer().validate(other, data, verbose=False)[0]["val/ppl"])
    with pytest.raises(ValueError, match=r"checkpoint: it has no keys_4, unlike this model; .*order: 3"):
        make_trainer().validate(NGramModel(data.vocab_size, 4), data, ckpt_path=tmp_path / "model.ckpt", verbose=False)


def test_a_resumed_run_counts_on(make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path) -> None:
    data = make_data(LINES, lanes=2, steps=5, stream=CompleteStream)
    once, whole, broken, resumed = (NGramModel(data.vocab_size, 3) for _ in range(4))
    make_trainer(max_epochs=1).fit(once, data)
    make_trainer(max_epochs=2).fit(whole, data)
    torch.testing.assert_close(whole.state_dict(), once.state_dict(), rtol=0, atol=0)  # two epochs do not count twice
    for step in (3, 8, 11):  # in the first epoch, at its end or behind it, and in the second
        make_trainer(max_epochs=2, callbacks=[SaveAt(step, tmp_path / "half.ckpt")]).fit(broken, data)
        make_trainer(max_epochs=2).fit(
            resumed, make_data(LINES, lanes=2, steps=5, stream=CompleteStream), ckpt_path=tmp_path / "half.ckpt"
        )
        torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert whole.counts.levels[0].counts.sum() == len(data.tokens("train")) - 1


def evaluated(ranks: int, folder: Path) -> dict[str, Any]:
    model = NGramModel.load_from_checkpoint(folder / "model.ckpt")
    data = LanguageData(Files(train=str(folder / "train.txt"), test=str(folder / "train.txt")), lanes=2, cache=str(folder))
    (metrics,) = bare_trainer(ranks).test(model, data, verbose=False)
    return dict(metrics)


@pytest.mark.slow
def test_two_ranks_evaluate_as_one(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    data = LanguageData(
        Files(train=str(tmp_path / "train.txt")), Words(), lanes=1, steps=100, stream=CompleteStream, cache=str(tmp_path)
    )
    trainer = bare_trainer(1, max_epochs=1)
    trainer.fit(NGramModel(data.vocab_size), data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    one = evaluated(1, tmp_path)
    assert one["test/ppl"] > 1
    for found in on_two_ranks(evaluated, 2, tmp_path, folder=tmp_path):
        assert found == pytest.approx(one, rel=1e-6)


class TestRefusals:
    def test_an_order_above_the_length_of_the_corpus(self, make_data: MakeData, make_trainer: MakeTrainer) -> None:
        data = make_data(["a b c"], lanes=1, steps=2, stream=CompleteStream)
        make_trainer(max_epochs=1).fit(NGramModel(data.vocab_size, 4), data)
        with pytest.raises(ValueError, match=r"no n-gram of 5 tokens in a training text of 4; set model.order lower"):
            make_trainer(max_epochs=1).fit(NGramModel(data.vocab_size, 5), data)

    @pytest.mark.parametrize(
        ("callback", "message"),
        [
            (RNNRegularization(), "loss terms: ar, tar would change nothing, for this model follows no gradient"),
            (LearningRateFinder(), "a NGramModel follows no gradient, and so has no learning rate"),
        ],
    )
    def test_what_is_for_gradients(
        self, make_data: MakeData, make_trainer: MakeTrainer, callback: Callback, message: str
    ) -> None:
        data = make_data(LINES, lanes=1, steps=5, stream=CompleteStream)
        with pytest.raises((ValueError, TypeError), match=message):
            make_trainer(max_epochs=1, callbacks=[callback]).fit(NGramModel(data.vocab_size), data)

    def test_windows_at_random(self, make_data: MakeData, make_trainer: MakeTrainer) -> None:
        data = make_data(LINES, lanes=2, steps=5, stream=SlidingStream)
        with pytest.raises(ValueError, match="these are drawn at random; stream in order"):
            make_trainer(max_epochs=1).fit(NGramModel(data.vocab_size), data)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"order": 0}, "order: an n-gram has at least 1 token, got 0"),
            (
                {"order": 3, "smoothing": Laplace([1.0, 1.0])},
                r"Laplace: \[1.0, 1.0\] cannot be the settings of 3 orders; give a number for each order",
            ),
            ({"order": 2, "smoothing": KneserNey([0.5])}, r"KneserNey: \[0.5\] cannot be the settings of 2 orders"),
        ],
    )
    def test_settings_that_do_not_fit(self, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            NGramModel(10, **settings)

    def test_smoothings_out_of_range(self) -> None:
        with pytest.raises(ValueError, match=r"Laplace: epsilons are numbers from 0, one for each order, got \[1.0, -1.0\]"):
            Laplace([1.0, -1.0])
        with pytest.raises(ValueError, match=r"KneserNey: discounts are numbers from 0 to 1, one for each order, got \[2.0\]"):
            KneserNey([2.0])
