"""Two processes train a LanguageModel as one process does, its state carried on."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from two_ranks import bare_trainer, on_two_ranks

from callbacks import GradientClipping, HiddenStateReset, RNNRegularization, WeightTying
from datamodules import LanguageData
from datamodules.sources import Files
from lm import LanguageModel
from lm.adaptive_input import AdaptiveEmbedding
from lm.adaptive_softmax import AdaptiveSoftmaxHead

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat .", "the horse sees a cat and a bird ."] * 12
NEVER_SEEN = 5
"""Ids behind those of the text, a cluster of their own."""


def trained(ranks: int, accumulate: int, folder: Path, clusters: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and metrics after 50 steps of the optimizer or a few more."""
    source = Files(train=str(folder / "train.txt"), validation=str(folder / "train.txt"))
    data = LanguageData(source, lanes=4, steps=7, evaluation_lanes=2, cache=str(folder / "cache"))
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
    callbacks = [GradientClipping(norm=0.5), HiddenStateReset(), RNNRegularization(1.0, 1.0), *[WeightTying()] * clusters]
    trainer = bare_trainer(ranks, accumulate_grad_batches=accumulate, max_epochs=epochs, callbacks=callbacks)
    trainer.fit(model, data)
    assert trainer.global_step == epochs * steps >= 50
    return model.state_dict(), dict(trainer.callback_metrics)


@pytest.mark.slow
@pytest.mark.parametrize(("accumulate", "clusters"), [(1, False), (2, False), (2, True)])
def test_two_ranks_learn_as_one(accumulate: int, clusters: bool, tmp_path: Path) -> None:
    """Also where some clusters have no target, and no word, on one rank or on both."""
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    weights, metrics = trained(1, accumulate, tmp_path, clusters)
    for others, other_metrics in on_two_ranks(trained, 2, accumulate, tmp_path, clusters, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        for name in ("train/ppl_epoch", "val/loss", "val/ppl", "val/accuracy"):
            assert float(other_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name
    assert metrics["val/ppl"] < 10  # there is something to get wrong
