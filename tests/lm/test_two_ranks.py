"""Two processes train and evaluate a LanguageModel as one process does, its state carried on."""

from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
import torch
from lightning import Callback
from two_ranks import bare_trainer, on_two_ranks

from callbacks import NTASGD, GradientClipping, HiddenStateReset, RNNRegularization, WeightTying, WindowRescale
from datamodules import LanguageData
from datamodules.sources import Files
from datamodules.streams import SequentialStream
from datamodules.variable_stream import VariableStream
from lm import LanguageModel
from lm.adaptive_input import AdaptiveEmbedding
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.neural_cache import NeuralCache
from lm.weight_drop import WeightDrop

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the horse sees a cat and a bird ."] * 12

NEVER_SEEN = 5
"""Ids behind those of the text, a cluster of their own."""
Setting = Literal["plain", "averaged", "clusters"]
"""Windows of one length; of many, with an average of weights; heads and embeddings of which some clusters have no word."""


def trained(ranks: int, accumulate: int, setting: Setting, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and metrics after 50 steps of the optimizer or a few more."""
    source = Files(train=str(folder / "train.txt"), validation=str(folder / "train.txt"))
    averaged, clusters = setting == "averaged", setting == "clusters"
    stream = partial(VariableStream, deviation=2.0, shortest=2) if averaged else SequentialStream
    data = LanguageData(source, lanes=4, steps=7, stream=stream, evaluation_lanes=2, cache=str(folder / "cache"))
    torch.manual_seed(0)
    adaptive: dict[str, Any] = {"cutoffs": [4, data.vocab_size], "div_value": 2.0}
    parts: dict[str, Any] = {
        "head": partial(AdaptiveSoftmaxHead, **adaptive),
        "embedding": partial(AdaptiveEmbedding, **adaptive),
    }
    model = LanguageModel(
        data.vocab_size + NEVER_SEEN,
        embedding_size=12,
        layer_sizes=[12, 12],
        optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9),
        **parts if clusters else {},
    )
    steps = -(-len(data.train_dataloader()) // accumulate)
    epochs = -(-50 // steps)
    average = NTASGD(patience=1, monitor="val/accuracy")  # which rises
    callbacks: list[Callback] = [GradientClipping(norm=0.5), HiddenStateReset(), RNNRegularization(1.0, 1.0)]
    callbacks += [WindowRescale(), average] if averaged else [WeightTying()] if clusters else []
    trainer = bare_trainer(ranks, accumulate_grad_batches=accumulate, max_epochs=epochs, callbacks=callbacks)
    trainer.fit(model, data)
    assert trainer.global_step == epochs * steps >= 50
    assert averaged == (average.steps > 0)
    return model.state_dict(), dict(trainer.callback_metrics)


@pytest.mark.slow
@pytest.mark.parametrize("setting", get_args(Setting))
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_learn_as_one(accumulate: int, setting: Setting, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    weights, metrics = trained(1, accumulate, setting, tmp_path)
    for others, other_metrics in on_two_ranks(trained, 2, accumulate, setting, tmp_path, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        for name in ("train/ppl_epoch", "val/loss", "val/ppl", "val/accuracy"):
            assert float(other_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name
    assert metrics["val/ppl"] < 10  # there is something to get wrong


def dropping(ranks: int, folder: Path) -> tuple[dict[str, Any], float]:
    """Weights after an epoch in which each rank drops others of a shared embedding, recurrent matrices and features."""
    data = LanguageData(Files(train=str(folder / "train.txt")), lanes=4, steps=7, cache=str(folder / "cache"))
    torch.manual_seed(0)
    dropout: dict[str, Any] = {"embedding_dropout": 0.1, "input_dropout": 0.2, "layer_dropout": 0.2, "output_dropout": 0.2}
    model = LanguageModel(data.vocab_size, 12, [14, 12], WeightDrop, optimizer=partial(torch.optim.Adam, lr=0.01), **dropout)
    trainer = bare_trainer(ranks, max_epochs=4, callbacks=[WeightTying(), RNNRegularization()])
    trainer.fit(model, data)
    return model.state_dict(), float(trainer.callback_metrics["train/ppl_epoch"])


@pytest.mark.slow
def test_two_ranks_that_drop_other_weights_keep_the_same_ones(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    (one, ppl), (other, _) = on_two_ranks(dropping, 2, tmp_path, folder=tmp_path)
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert ppl < 10  # of 14 words


def evaluated(ranks: int, folder: Path) -> dict[str, Any]:
    """The metrics of a text in two lanes, each with a cache of its own."""
    source = Files(train=str(folder / "train.txt"), validation=str(folder / "train.txt"))
    data = LanguageData(source, lanes=4, steps=7, evaluation_lanes=2, cache=str(folder / "cache"))
    torch.manual_seed(0)
    model = LanguageModel(data.vocab_size, 12, [12], evaluation=NeuralCache(theta=1.0, weight=0.5, window=20))
    (metrics,) = bare_trainer(ranks).validate(model, data, verbose=False)
    return dict(metrics)


@pytest.mark.slow
def test_two_ranks_evaluate_with_a_cache_as_one(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    metrics = evaluated(1, tmp_path)
    assert metrics["val/ppl"] > 1
    for others in on_two_ranks(evaluated, 2, tmp_path, folder=tmp_path):
        assert others == pytest.approx(metrics, rel=1e-6)
