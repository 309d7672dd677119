"""What every head has to do in a language model: train, evaluate, write, score, and come back from a checkpoint."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from callbacks import HiddenStateReset, WeightTying
from datamodules.language import LanguageData
from lm import LanguageModel, Sampling
from lm.adaptive_input import AdaptiveEmbedding
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import LinearHead
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the dog sees the cat ."] * 3
SIZE, CUTOFFS = 8, [4, 7]
MakeTrainer = Callable[..., Trainer]
ADAPTIVE: dict[str, Any] = {"cutoffs": CUTOFFS, "div_value": 2.0}

HEADS: dict[str, dict[str, Any]] = {
    "linear": {"head": partial(LinearHead, projection_size=SIZE)},
    "mixture": {"head": partial(MixtureOfSoftmaxesHead, experts=3, latent_dropout=0.2, projection_size=SIZE)},
    "adaptive": {
        "head": partial(AdaptiveSoftmaxHead, projection_size=SIZE, **ADAPTIVE),
        "embedding": partial(AdaptiveEmbedding, **ADAPTIVE),
    },
}

pytestmark = [pytest.mark.usefixtures("seed"), pytest.mark.parametrize("name", HEADS)]


@pytest.fixture
def data(make_data: Callable[..., LanguageData]) -> LanguageData:
    return make_data(LINES, validation=LINES[:7], lanes=3, steps=5, evaluation_lanes=1)


def make_model(name: str, data: LanguageData) -> LanguageModel:
    optimizer = partial(torch.optim.Adam, lr=0.05)
    return LanguageModel(data.vocab_size, SIZE, [12], output_dropout=0.1, optimizer=optimizer, **HEADS[name])


def plain_nll(model: LanguageModel, tokens: Tensor) -> Tensor:
    """The nll of each token but the first, from log-probabilities of one step after another."""
    state, found = None, []
    for time in range(tokens.shape[1] - 1):
        log_prob, state = model.next_token(tokens[:, time : time + 1], state)
        found.append(-log_prob.gather(1, tokens[:, time + 1, None])[:, 0])
    return torch.stack(found, dim=1)


def test_it_learns_evaluates_writes_and_scores(name: str, data: LanguageData, make_trainer: MakeTrainer) -> None:
    model, trainer = make_model(name, data), make_trainer(max_epochs=5, callbacks=[WeightTying(), HiddenStateReset()])
    trainer.fit(model, data)
    metrics = trainer.callback_metrics
    assert metrics["val/ppl"] < 6  # of 11 words
    assert metrics["val/accuracy"] > 0.4
    (score,) = model.score("the cat likes the dog .")
    tokenizer = model.text_tokenizer()
    ids = [tokenizer.end, *tokenizer.encode("the cat likes the dog ."), tokenizer.end]
    with torch.no_grad():
        torch.testing.assert_close(score.nll, plain_nll(model.eval(), torch.tensor([ids]))[0], rtol=1e-4, atol=1e-4)
    text = model.generate("the", 8, Sampling(temperature=0))
    assert text == model.generate(["the"], 8, Sampling(temperature=0))
    assert len(text[0].split()) > 1
    predictions = trainer.predict(model, data)
    assert predictions is not None


def test_validation_is_that_of_its_log_probabilities(name: str, data: LanguageData, make_trainer: MakeTrainer) -> None:
    model = make_model(name, data)
    (metrics,) = make_trainer().validate(model, data, verbose=False)
    tokens = torch.from_numpy(data.tokens("validation").astype("int64"))
    with torch.no_grad():
        log_prob = model.head.log_prob(model.eval()(tokens[None, :-1]).hidden)[0]
    nll = -log_prob.gather(1, tokens[1:, None])
    assert metrics["val/ppl"] == pytest.approx(float(nll.mean().exp()), rel=1e-4)
    assert metrics["val/accuracy"] == pytest.approx(float((log_prob.argmax(1) == tokens[1:]).float().mean()), rel=1e-4)


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
def test_it_trains_in_other_precisions(name: str, data: LanguageData, make_trainer: MakeTrainer, precision: str) -> None:
    model, trainer = make_model(name, data), make_trainer(max_epochs=3, callbacks=[WeightTying()], precision=precision)
    trainer.fit(model, data)
    assert trainer.callback_metrics["val/ppl"] < 8
    assert {weight.dtype for weight in model.parameters()} == {torch.float64 if precision == "64-true" else torch.float32}


def test_it_comes_back_from_its_checkpoint_and_goes_on_from_it(
    name: str, data: LanguageData, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    def run(epochs: int, checkpoint: Path | None = None) -> tuple[LanguageModel, Trainer]:
        torch.manual_seed(0)
        trainer = make_trainer(max_epochs=epochs, callbacks=[WeightTying(), HiddenStateReset()])
        trainer.fit(model := make_model(name, data), data, ckpt_path=checkpoint)
        return model, trainer

    model, trainer = run(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = LanguageModel.load_from_checkpoint(tmp_path / "one.ckpt")
    assert loaded.score(LINES[:3])[0].log_prob == model.score(LINES[:3])[0].log_prob
    assert loaded.generate("the", 9) == model.generate("the", 9)
    resumed, whole = run(2, tmp_path / "one.ckpt")[0], run(2)[0]
    for ours, expected in zip(resumed.parameters(), whole.parameters(), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("rows", [0, 4])
def test_nothing_to_learn_from_gives_a_gradient_of_zero(name: str, rows: int) -> None:
    head = HEADS[name]["head"](12, 10)
    total = head.loss(torch.randn(rows, 12), torch.zeros(rows, dtype=torch.long), torch.zeros(rows)).total
    assert total == 0
    for gradient in torch.autograd.grad(total, list(head.parameters())):
        assert not gradient.any()
