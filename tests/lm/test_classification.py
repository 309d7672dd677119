"""A classifier: its loss, its windows, its ensemble, what it learns from a language model, and what it refuses."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import GivenLines
from lightning import Trainer
from saving import SaveAt
from torch import Tensor
from torch.nn.functional import cross_entropy
from two_ranks import bare_trainer, on_two_ranks

from callbacks import GradualUnfreezing, StartFrom
from callbacks.confusion import ConfusionMatrix, confusion_figure
from callbacks.highest_loss import HighestLoss
from datamodules.classification import ClassificationData
from datamodules.labelled import LabelledSource, LabelledText
from datamodules.language import LanguageData
from datamodules.recipes import Words
from datamodules.sources import Split
from lm import LanguageModel, Schedule
from lm.classification import Classifier, backwards
from lm.layers import GRU, LSTM
from lm.network import RecurrentNetwork
from lm.prediction import Prediction

TEXTS = [
    LabelledText(f"{start} {middle} {word} {end}", label)
    for label, words in (("bad", ("dull", "slow", "weak")), ("good", ("fine", "warm", "great")))
    for word in words
    for start in ("a", "the", "this")
    for middle in ("very", "really very", "film is")
    for end in ("film .", "story , it is .")
]
NETWORK = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8, 8], cell=LSTM)
MakeTrainer = Callable[..., Trainer]


@dataclass(frozen=True)
class GivenTexts(LabelledSource):
    """Texts that a test writes itself."""

    train: Sequence[LabelledText] = tuple(TEXTS)
    test: Sequence[LabelledText] = ()

    def load(self) -> dict[Split, list[LabelledText]]:
        given: dict[Split, Sequence[LabelledText]] = {"train": self.train, "test": self.test}
        return {split: list(texts) for split, texts in given.items() if texts}


def make_data(folder: Path, source: LabelledSource | None = None, **settings: Any) -> ClassificationData:
    source = source or GivenTexts(validation_fraction=0.2, test_fraction=0.2)
    return ClassificationData(source, batch_size=settings.pop("batch_size", 8), cache=str(folder / "cache"), **settings)


def make_model(data: ClassificationData, **settings: Any) -> Classifier:
    torch.manual_seed(0)
    settings = {"network": NETWORK, "optimizer": partial(torch.optim.Adam, lr=0.02), **settings}
    return Classifier(data.vocab_size, data.label_count, **settings)


def fitted(folder: Path, trainer: Trainer, **settings: Any) -> tuple[Classifier, ClassificationData]:
    data = make_data(folder, direction=settings.get("direction", "left_to_right"))
    model = make_model(data, **settings)
    trainer.fit(model, data)
    return model, data


def test_texts_are_read_whole_in_both_directions(tmp_path: Path) -> None:
    ahead, back = make_data(tmp_path), make_data(tmp_path, direction="right_to_left")
    for batch, reverse in zip(ahead.train_dataloader(), back.train_dataloader(), strict=True):
        assert torch.equal(reverse.tokens, backwards(batch.tokens, batch.lengths))
        assert float(batch.normalizer) == len(batch.labels)
        for tokens, length, label, text in zip(batch.tokens, batch.lengths, batch.labels.tolist(), batch.texts, strict=True):
            assert ahead.tokenizer.decode(tokens[:length].tolist()) == text
            assert (text, ahead.labels.tokens([label])[0]) in TEXTS


def test_the_loss_is_the_mean_over_texts(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    data = make_data(tmp_path)
    model = make_model(data, pooling="last")
    batch = next(iter(data.train_dataloader()))
    hidden = [model.network(row[None, :length]).hidden[0, -1] for row, length in zip(batch.tokens, batch.lengths, strict=True)]
    expected = cross_entropy(model.head.log_prob(torch.stack(hidden)), batch.labels)
    model.trainer = make_trainer(max_epochs=1)
    model.log = lambda *_, **__: None  # type: ignore[method-assign]
    torch.testing.assert_close(model.training_step(batch, 0)["loss"], expected)


@pytest.mark.parametrize("settings", [{"network": partial(NETWORK, bidirectional=True), "pooling": "max"}, {"window": 3}])
def test_it_learns_says_what_it_learned_and_is_restored(
    settings: dict[str, Any], tmp_path: Path, make_trainer: MakeTrainer, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = make_trainer(max_epochs=8, callbacks=[ConfusionMatrix(), HighestLoss(count=4)])
    model, data = fitted(tmp_path, trainer, **settings)
    assert trainer.callback_metrics["val/accuracy"] > 0.9
    (metrics,) = trainer.test(model, data, verbose=False)
    assert metrics["test/accuracy"] == metrics["test/f1"] == 1
    assert (tmp_path / "confusion.png").stat().st_size > 5000
    heading, *worst = (tmp_path / "highest_loss.tsv").read_text().splitlines()
    losses = [float(line.split("\t")[0]) for line in worst]
    assert heading == "loss\ttarget\ttext"
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == 4
    assert "good" in capsys.readouterr().out
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    restored = Classifier.load_from_checkpoint(tmp_path / "model.ckpt")
    good, bad = restored.classify(["this warm film is great .", "a dull story , it is ."])
    assert (good.label, bad.label) == ("good", "bad")
    assert sum(good.probabilities.values()) == pytest.approx(1)
    batches = trainer.predict(model, data)
    assert batches is not None
    rows = [row for batch in batches if isinstance(batch, Prediction) for row in batch.rows]
    assert [(row[0], row[1]) for row in rows] == list(data.source.labelled()["test"])
    assert all(target == predicted and float(probability) > 0.5 for _, target, predicted, probability in rows)


def test_the_confusion_matrix_counts_and_is_drawn() -> None:
    data_free = Classifier(10, 3, NETWORK)
    data_free.label_metrics.update(torch.tensor([0, 1, 1, 2]), torch.tensor([0, 0, 1, 1]))
    scores, confusion = data_free.label_metrics.finish(["a", "b", "c"])
    assert confusion.counts.tolist() == [[1, 1, 0], [0, 1, 1], [0, 0, 0]]
    assert confusion.f1.tolist() == pytest.approx([2 / 3, 1 / 2, 0])
    assert float(scores["accuracy"]) == 0.5
    axes = confusion_figure(confusion).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    assert sorted(text.get_text() for text in axes.texts) == ["1"] * 4


def test_both_directions_are_ensembled_by_their_mean_probability(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    trainers = [make_trainer(max_epochs=1) for _ in range(2)]
    models = []
    for trainer, direction in zip(trainers, ("left_to_right", "right_to_left"), strict=True):
        model, _ = fitted(tmp_path, trainer, direction=direction)
        trainer.save_checkpoint(tmp_path / f"{direction}.ckpt")
        models.append(model)
    texts = ["this warm film is great .", "a dull story"]
    alone = [[found.probabilities["good"] for found in model.classify(texts)] for model in models]
    both = Classifier.load_from_checkpoint(tmp_path / "left_to_right.ckpt", ensemble=[str(tmp_path / "right_to_left.ckpt")])
    together = [found.probabilities["good"] for found in both.classify(texts)]
    assert together == pytest.approx([sum(pair) / 2 for pair in zip(*alone, strict=True)], rel=1e-4)
    data = make_data(tmp_path)
    (metrics,) = make_trainer().test(both, data, verbose=False)
    ids = {
        text: [found.probabilities[label] for found in both.classify([text])] for text, label in data.source.labelled()["test"]
    }
    nll = -torch.tensor([value for (value,) in ids.values()]).log().mean()
    assert metrics["test/loss"] == pytest.approx(float(nll), rel=1e-4)


def test_a_language_model_lends_its_network_and_its_words(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    lines = GivenLines([text.text for text in TEXTS] + ["words nobody knows"] * 3)
    language = LanguageData(lines, lanes=4, steps=6, cache=str(tmp_path / "cache"))
    teacher = LanguageModel(language.vocab_size, 8, [8, 8])
    trainer = make_trainer(max_epochs=1)
    trainer.fit(teacher, language)
    trainer.save_checkpoint(tmp_path / "lm.ckpt")

    data = make_data(tmp_path, tokenizer=Words(reserved_tokens=("[PAD]", "<unk>")))
    model = make_model(data, schedule=Schedule(layer_factor=2.6), optimizer=partial(torch.optim.SGD, lr=0.0))
    start = StartFrom(
        str(tmp_path / "lm.ckpt"),
        {"network": "network"},
        tokenizers={"tokenizer": "tokenizer"},
        by_word={"network.embedding.weight": "tokenizer"},
    )
    trainer = make_trainer(max_epochs=1, callbacks=[start, GradualUnfreezing()])
    trainer.fit(model, data)
    theirs, ours = teacher.network.embedding.weight, model.network.embedding.weight
    assert isinstance(theirs, Tensor)
    assert isinstance(ours, Tensor)
    for word in ("dull", "<unk>", "."):
        assert torch.equal(ours[data.tokenizer.id_of(word)], theirs[language.tokenizer.id_of(word)])
    torch.testing.assert_close(ours[data.tokenizer.id_of("[PAD]")], theirs.mean(dim=0))
    for own, other in zip(model.network.layers.parameters(), teacher.network.layers.parameters(), strict=True):
        assert torch.equal(own, other)
    assert len(trainer.optimizers[0].param_groups) == 4  # embedding, two layers, head


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"by_word": {"network.embedding.weight": "tokenizer"}}, "tokenizers does not say which of the checkpoint's that is"),
        ({"tokenizers": {"tokenizer": "tokenizer"}}, "vocabulary: the checkpoint's tokenizer has"),
        (
            {"tokenizers": {"tokenizer": "tokenizer"}, "by_word": {"network.embedding.rows": "tokenizer"}},
            r"has no network\.embedding\.rows to take",
        ),
        (
            {"tokenizers": {"tokenizer": "words"}, "by_word": {"network.embedding.weight": "tokenizer"}},
            "this data has no tokenizer: leave by_word out",
        ),
    ],
)
def test_words_that_cannot_be_taken_over_are_named(
    settings: dict[str, Any], message: str, tmp_path: Path, make_trainer: MakeTrainer
) -> None:
    language = LanguageData(GivenLines(["a b c d e f g"] * 9), lanes=2, steps=4, cache=str(tmp_path / "cache"))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(LanguageModel(language.vocab_size, 8, [8, 8]), language)
    trainer.save_checkpoint(tmp_path / "lm.ckpt")
    data = make_data(tmp_path)
    with pytest.raises(ValueError, match=message):
        make_trainer(max_epochs=1, callbacks=[StartFrom(str(tmp_path / "lm.ckpt"), {"network": "network"}, **settings)]).fit(
            make_model(data), data
        )


def test_a_run_stopped_and_resumed_equals_one_that_was_not(tmp_path: Path, make_trainer: MakeTrainer) -> None:
    def fit(checkpoint: Path | None, *callbacks: SaveAt) -> Classifier:
        data = make_data(tmp_path, pool=2)
        model = make_model(data, window=3, pooled_dropout=0.3)
        make_trainer(max_epochs=2, callbacks=list(callbacks)).fit(model, data, ckpt_path=checkpoint)
        return model

    whole = fit(None, SaveAt(5, tmp_path / "fifth.ckpt"))
    resumed = fit(tmp_path / "fifth.ckpt")
    assert all(torch.equal(*pair) for pair in zip(whole.parameters(), resumed.parameters(), strict=True))


class TestRefused:
    def test_windows_of_a_bidirectional_network(self) -> None:
        network = partial(NETWORK, bidirectional=True)
        with pytest.raises(ValueError, match=r"a window of 5 tokens is all that .* leave window out"):
            Classifier(10, 2, network, window=5)
        with pytest.raises(ValueError, match="window counts from 1, or is null, got 0"):
            Classifier(10, 2, window=0)

    def test_an_empty_text(self, tmp_path: Path) -> None:
        data = make_data(tmp_path)
        model = make_model(data)
        with pytest.raises(ValueError, match="trained without one"):
            model.classify("fine")
        model.tokenizer = data.tokenizer
        assert model.classify([]) == []
        with pytest.raises(ValueError, match="text 2, ' ', has no token to read"):
            model.classify(["fine", " "])

    def test_a_text_of_which_normalization_leaves_nothing(self, tmp_path: Path) -> None:
        source = GivenTexts((LabelledText("fine", "good"), LabelledText("!!!", "bad")))
        data = make_data(tmp_path, source, tokenizer=Words(normalization="letters"))
        with pytest.raises(ValueError, match=r"of text 2 of train, '!!!', the tokenizer leaves no token"):
            _ = data.vocab_size

    def test_data_that_is_read_the_other_way(self, tmp_path: Path, make_trainer: MakeTrainer) -> None:
        data = make_data(tmp_path, direction="right_to_left")
        with pytest.raises(ValueError, match="the model reads left_to_right and its data right_to_left"):
            make_trainer(max_epochs=1).fit(make_model(data), data)

    def test_an_ensemble_of_other_words(self, tmp_path: Path, make_trainer: MakeTrainer) -> None:
        trainer = make_trainer(max_epochs=1)
        fitted(tmp_path, trainer)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        other = make_data(tmp_path, GivenTexts(tuple(TEXTS[:4] + TEXTS[-4:]), tuple(TEXTS[:2])))
        joining = make_model(other, ensemble=[str(tmp_path / "a.ckpt")])
        with pytest.raises(ValueError, match="ensemble's tokenizer has"):
            make_trainer().test(joining, other, verbose=False)

    def test_a_callback_for_another_model(self, tmp_path: Path, make_trainer: MakeTrainer) -> None:
        language = LanguageData(GivenLines(["a b c d"] * 9, test=["a b"]), lanes=2, steps=4, cache=str(tmp_path / "cache"))
        with pytest.raises(TypeError, match="HighestLoss needs a Classifier"):
            make_trainer(callbacks=[HighestLoss()]).test(LanguageModel(language.vocab_size, 4, [4]), language, verbose=False)
        with pytest.raises(ValueError, match="count counts from 1"):
            HighestLoss(count=0)


def trained(ranks: int, accumulate: int, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Weights and metrics after two epochs; the last batch has fewer texts than there are ranks."""
    source = GivenTexts(tuple(TEXTS[:13] + TEXTS[-20:]), tuple(TEXTS[:3] + TEXTS[-2:]))
    data = make_data(folder, source, batch_size=8, evaluation_batch_size=2)
    network = partial(RecurrentNetwork, embedding_size=6, layer_sizes=[6], cell=GRU)
    model = make_model(data, network=network, optimizer=partial(torch.optim.SGD, lr=0.5))
    trainer = bare_trainer(ranks, max_epochs=2, accumulate_grad_batches=accumulate)
    trainer.fit(model, data)
    weights = model.state_dict()
    (metrics,) = trainer.test(model, data, verbose=False)
    return weights, dict(metrics)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_ranks_learn_as_one(accumulate: int, tmp_path: Path) -> None:
    weights, metrics = trained(1, accumulate, tmp_path)
    for others, other_metrics in on_two_ranks(trained, 2, accumulate, tmp_path, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        assert other_metrics == pytest.approx(metrics, rel=1e-5)
