"""Two processes train and score a Seq2Seq as one process does."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from two_ranks import bare_trainer, on_two_ranks

from callbacks import GradientClipping, SampleTranslations
from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.beam import BeamSearch
from mt.decoder import Decoder

READER = partial(RecurrentNetwork, embedding_size=16, layer_sizes=[16], cell=GRU, bidirectional=True)
WRITER = partial(RecurrentNetwork, embedding_size=16, layer_sizes=[16], cell=GRU)
TRAININGS: list[tuple[Callable[..., Decoder], int]] = [(AttentionDecoder, 1), (AttentionDecoder, 2), (ContextDecoder, 2)]
"""Decoders, and over how many batches gradients are gathered."""


def make_data(folder: Path) -> TranslationData:
    """51, 11 and 11 pairs in batches of 5: 3 and 2 for two ranks, and of the last batch of one pair 1 and none."""
    source = NumberPairs(target="es", limit=73, validation_fraction=0.15, test_fraction=0.15)
    return TranslationData(source, batch_size=5, cache=str(folder))


def train(ranks: int, data: TranslationData, decoder: Callable[..., Decoder], accumulate: int, epochs: int) -> Trainer:
    """11 batches an epoch, so that the last step of two batches has one."""
    torch.manual_seed(0)
    model = Seq2Seq(
        data.source_vocab_size,
        data.target_vocab_size,
        READER,
        partial(decoder, network=WRITER),
        search=BeamSearch(width=3),
        tokenization="char",  # BLEU of texts with fewer than four words is 0
        optimizer=partial(torch.optim.SGD, lr=0.3, momentum=0.9),  # Adam would not see a gradient that is too large
    )
    parts = [GradientClipping(norm=2.0), SampleTranslations(1)]
    trainer = bare_trainer(ranks, max_epochs=epochs, accumulate_grad_batches=accumulate, callbacks=parts, precision="64-true")
    trainer.fit(model, data)
    return trainer


def trained(ranks: int, folder: Path) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Weights and metrics after each training of 50 steps or a few more, in fp64: SGD at this rate makes much of a rounding."""
    found = []
    for decoder, accumulate in TRAININGS:
        steps = -(-11 // accumulate)
        epochs = -(-50 // steps)
        trainer = train(ranks, make_data(folder), decoder, accumulate, epochs)
        assert trainer.global_step == epochs * steps
        found.append((trainer.lightning_module.state_dict(), dict(trainer.callback_metrics)))
    return found


def scored(ranks: int, folder: Path) -> list[Any]:
    """The validation and the test of the model in the folder."""
    model, data = Seq2Seq.load_from_checkpoint(folder / "model.ckpt"), make_data(folder)
    trainer = bare_trainer(ranks)
    return [trainer.validate(model, data, verbose=False), trainer.test(model, data, verbose=False)]


def trained_and_scored(folder: Path) -> Any:
    """What a rank does."""
    return trained(2, folder), scored(2, folder)


@pytest.mark.slow
def test_two_ranks_learn_and_score_as_one(tmp_path: Path) -> None:
    train(1, make_data(tmp_path), AttentionDecoder, 1, epochs=8).save_checkpoint(tmp_path / "model.ckpt")
    expected, scores = trained(1, tmp_path), scored(1, tmp_path)
    for found, same_scores in on_two_ranks(trained_and_scored, tmp_path, folder=tmp_path):
        for (weights, metrics), (others, other_metrics) in zip(expected, found, strict=True):
            torch.testing.assert_close(others, weights, rtol=0, atol=1e-10)
            for name in ("train/ppl_epoch", "val/loss", "val/ppl", "val/token_accuracy", "val/bleu", "val/chrf"):
                assert float(other_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-4), name
        for (one,), (two,) in zip(scores, same_scores, strict=True):
            assert two == pytest.approx(one, rel=1e-6)
    (validated,), (tested,) = scores
    assert {"val/ppl", "val/token_accuracy", "val/sequence_accuracy", "val/bleu", "val/chrf"} <= validated.keys()
    assert {"test/bleu", "test/chrf", "test/bleu_search", "test/chrf_search", "test/sequence_accuracy"} <= tested.keys()
    assert 5 < tested["test/bleu"] < 100  # there is something to get wrong
