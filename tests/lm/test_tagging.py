"""A tagger: what it reads, its loss, its scores, and that it tags text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer
from saving import SaveAt
from torch.nn.functional import cross_entropy
from two_ranks import bare_trainer, on_two_ranks

from datamodules.number_labels import NumberPlaces
from datamodules.sources import Split
from datamodules.tagged import CoNLLU, TaggedSentence, TaggedSource
from datamodules.tagging import TaggingData
from lm.character_cnn import BEGINNING, END, PADDING, spelled_in_bytes
from lm.layers import GRU
from lm.network import RecurrentNetwork
from lm.prediction import Prediction
from lm.tagging import Tagger

NETWORK = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[12], bidirectional=True)
EWT = Path(__file__).parents[3] / "shared/data/ud-ewt/en_ewt-ud-dev.conllu.gz"
MakeTrainer = Callable[..., Trainer]


@dataclass(frozen=True)
class Suffixes(TaggedSource):
    """Words never seen twice, tagged by how they end: only their spelling tells."""

    def load(self) -> dict[Split, list[TaggedSentence]]:
        ends = {"ing": "VERB", "ly": "ADV", "ness": "NOUN"}

        def sentence(number: int, split: str) -> TaggedSentence:
            kinds = [list(ends)[(number * factor) % 3] for factor in (1, 2, 4, 5)]
            return TaggedSentence(
                [f"{split}{number}{place}{end}" for place, end in enumerate(kinds)], [ends[end] for end in kinds]
            )

        return {"train": [sentence(n, "a") for n in range(60)], "test": [sentence(n, "b") for n in range(30)]}


def make_model(data: TaggingData, **settings: Any) -> Tagger:
    torch.manual_seed(0)
    settings = {"network": NETWORK, "optimizer": partial(torch.optim.Adam, lr=0.02), **settings}
    return Tagger(data.vocab_size, data.label_count, **settings)


def test_the_loss_is_the_mean_over_words(make_trainer: MakeTrainer) -> None:
    data = TaggingData(NumberPlaces(limit=500), batch_size=16)
    model = make_model(data)
    batch = next(iter(data.train_dataloader()))
    logits = [
        model.head.log_prob(model.network(row[None, :length]).hidden[0])
        for row, length in zip(batch.tokens, batch.lengths, strict=True)
    ]
    expected = cross_entropy(torch.cat(logits), batch.tags[batch.mask])
    model.trainer = make_trainer(max_epochs=1)
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    torch.testing.assert_close(model.training_step(batch, 0)["loss"], expected)


def test_from_both_sides_it_knows_what_from_one_it_cannot(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    data = TaggingData(NumberPlaces(limit=3000), batch_size=32)
    scores = {}
    for bidirectional in (True, False):
        model = make_model(data, network=partial(NETWORK, bidirectional=bidirectional))
        trainer = make_trainer(max_epochs=2)
        trainer.fit(model, data)
        (scores[bidirectional],) = trainer.test(model, data, verbose=False)
        if bidirectional:
            trainer.save_checkpoint(tmp_path / "tagger.ckpt")
            batches = trainer.predict(model, data)
    assert scores[True]["test/accuracy"] > 0.997 > 0.99 > scores[False]["test/accuracy"]
    assert scores[True]["test/span_f1"] > 0.99 > 0.98 > scores[False]["test/span_f1"]

    assert batches is not None
    rows = [row for batch in batches if isinstance(batch, Prediction) for row in batch.rows]
    sentences = data.sentences["test"]
    assert [row[1] for row in rows] == [word for sentence in sentences for word in sentence.words]
    assert [row[2] for row in rows] == [tag for sentence in sentences for tag in sentence.tags]
    assert rows[0][0] == "1"
    assert rows[-1][0] == str(len(sentences))
    assert sum(row[2] == row[3] for row in rows) / len(rows) == pytest.approx(scores[True]["test/accuracy"])

    restored = Tagger.load_from_checkpoint(tmp_path / "tagger.ckpt")
    alone = restored.tag([["two", "thousand", "four", "hundred", "six"]])
    assert alone == [["B-thousands", "I-thousands", "B-hundreds", "I-hundreds", "B-rest"]]
    together = restored.tag([[], ["two", "thousand", "four", "hundred", "six"], ["six"]])
    assert together == [[], alone[0], ["B-rest"]]
    assert restored.tag([[]]) == [[]]


@pytest.mark.parametrize("features", [0, 16])
def test_spelling_tells_what_unknown_words_are(features: int, make_trainer: MakeTrainer) -> None:
    data = TaggingData(Suffixes(), batch_size=8)
    model, trainer = make_model(data, character_features=features, filters=8), make_trainer(max_epochs=15)
    trainer.fit(model, data)
    (metrics,) = trainer.test(model, data, verbose=False)
    assert data.vocab_size == 1
    assert (metrics["test/accuracy"] > 0.9) == (features > 0)
    assert "test/span_f1" not in metrics


def test_words_are_spelled_in_bytes() -> None:
    found = spelled_in_bytes(["añ", "abcdef"], longest=4)
    a, first, second = END + 1 + ord("a"), END + 1 + 0xC3, END + 1 + 0xB1
    assert found.tolist() == [[BEGINNING, a, first, second, END, PADDING], [BEGINNING, a, a + 1, a + 2, a + 3, END]]


def test_a_run_stopped_and_resumed_equals_one_that_was_not(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    def fit(checkpoint: Path | None, *callbacks: SaveAt) -> Tagger:
        data = TaggingData(NumberPlaces(limit=300), batch_size=32, pool=2)
        model = make_model(
            data, network=partial(NETWORK, input_dropout=0.3, embedding_dropout=0.1), character_features=4, filters=2
        )
        make_trainer(max_epochs=2, callbacks=list(callbacks)).fit(model, data, ckpt_path=checkpoint)
        return model

    whole = fit(None, SaveAt(11, tmp_path / "eleventh.ckpt"))
    resumed = fit(tmp_path / "eleventh.ckpt")
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_other_tags_than_those_of_the_model_are_refused(make_trainer: MakeTrainer) -> None:
    data = TaggingData(NumberPlaces(limit=200))
    model, trainer = make_model(data), make_trainer(max_epochs=1)
    with pytest.raises(ValueError, match="trained without one"):
        model.tag([["one"]])
    trainer.fit(model, data)
    with pytest.raises(ValueError, match="vocabulary: the checkpoint's tokenizer has"):
        trainer.test(model, TaggingData(NumberPlaces(limit=2000)), verbose=False)


@pytest.mark.slow
@pytest.mark.skipif(not EWT.exists(), reason="needs ../shared/data/ud-ewt")
def test_parts_of_speech_of_web_text(make_trainer: MakeTrainer) -> None:
    data = TaggingData(CoNLLU(str(EWT), test_fraction=0.2), batch_size=16)
    network = partial(RecurrentNetwork, embedding_size=50, layer_sizes=[50], bidirectional=True)
    model, trainer = make_model(data, network=network, character_features=50, filters=25), make_trainer(max_epochs=3)
    trainer.fit(model, data)
    (metrics,) = trainer.test(model, data, verbose=False)
    assert metrics["test/accuracy"] > 0.8


def trained(ranks: int, accumulate: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and metrics after two epochs; the last batch has fewer sentences than there are ranks."""
    data = TaggingData(NumberPlaces(limit=151, validation_fraction=0.1, test_fraction=0.1), batch_size=8, evaluation_batch_size=2)
    assert len(data.sentences["train"]) % 8 == len(data.sentences["test"]) % 2 == 0
    data.sentences["train"].pop()
    del data.sentences["train"][:6]
    data.sentences["test"].pop()
    network = partial(RecurrentNetwork, embedding_size=6, layer_sizes=[6], cell=GRU, bidirectional=True)
    model = make_model(data, network=network, character_features=4, filters=2, optimizer=partial(torch.optim.SGD, lr=0.5))
    trainer = bare_trainer(ranks, max_epochs=2, accumulate_grad_batches=accumulate)
    trainer.fit(model, data)
    weights = model.state_dict()
    (metrics,) = trainer.test(model, data, verbose=False)
    return weights, dict(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_learn_as_one(accumulate: int, tmp_path: Path) -> None:
    weights, metrics = trained(1, accumulate)
    for others, other_metrics in on_two_ranks(trained, 2, accumulate, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        assert other_metrics == pytest.approx(metrics, rel=1e-5)
