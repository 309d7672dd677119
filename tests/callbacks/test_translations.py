"""Translations that a run prints, logs and writes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from corpora import GivenPairs
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from matplotlib.image import imread

from callbacks import LearningCurve, SampleTranslations
from callbacks.heat_map import attention_figure, pixels
from callbacks.translation_output import WriteTranslations
from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from datamodules.parallel import FileNames, ParallelFiles
from datamodules.sources import Split
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.search import GreedySearch

SMALL = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8], cell=GRU)


class Texts(CSVLogger):
    """Keeps the tables it is given."""

    rows: list[list[Any]]

    def log_text(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        self.rows = [*getattr(self, "rows", []), [key, columns], *data]


class Pictures(CSVLogger):
    """Keeps the images it is given."""

    images: list[tuple[str, str, int | None, np.ndarray]]

    def log_image(self, key: str, images: list[np.ndarray], step: int | None = None, caption: Sequence[str] = ()) -> None:
        (image,), (text,) = images, caption
        self.images = [*getattr(self, "images", []), (key, text, step, image)]


@pytest.fixture
def data(tmp_path: Path) -> TranslationData:
    return TranslationData(NumberPairs(target="es", limit=60, test_fraction=0.2), batch_size=16, cache=str(tmp_path / "cache"))


@pytest.fixture
def model(data: TranslationData) -> Seq2Seq:
    return Seq2Seq(data.source_vocab_size, data.target_vocab_size, SMALL, partial(AttentionDecoder, network=SMALL))


def test_samples_stand_beside_their_references(
    data: TranslationData,
    model: Seq2Seq,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    logger = Texts(tmp_path / "logs")
    make_trainer(max_epochs=4, callbacks=[SampleTranslations(2, every_n_epochs=2)], logger=logger).fit(model, data)
    out = capsys.readouterr().out
    first, second = (data.texts("validation")[place] for place in (0, len(data.texts("validation")) // 2))
    for pair in (first, second):
        assert out.count(f": {pair.source}\n  -> ") == 2
        assert out.count(f"\n   = {pair.target}\n") == 2
    assert logger.rows[0] == ["translations", ["step", "source", "reference", "translation"]]
    assert [row[1:3] for row in logger.rows[1:3]] == [list(first), list(second)]
    assert logger.rows[-1][3] == model.translate(second.source, GreedySearch())[0][0].text


def test_of_a_very_long_sentence_the_beginning_is_translated(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    pairs = [("one two", "uno dos"), ("three", "tres")]
    data = TranslationData(GivenPairs(pairs, [("one " * 3000, "uno")]), cache=str(tmp_path / "cache"))
    model = Seq2Seq(data.source_vocab_size, data.target_vocab_size, SMALL, partial(AttentionDecoder, network=SMALL))
    end = data.target_tokenizer.id_of("<eos>")
    with torch.no_grad():
        model.head.get_parameter("bias")[end] = -50.0  # no translation ends by itself
    logger = Texts(tmp_path / "logs")
    make_trainer(max_epochs=1, callbacks=[SampleTranslations(1)], logger=logger).fit(model, data)
    assert len(logger.rows[-1][3].split()) == (1000 + 1) * 2 + 10


def test_a_logger_of_images_gets_where_each_sample_looked(
    data: TranslationData, model: Seq2Seq, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    logger = Pictures(tmp_path / "logs")
    trainer = make_trainer(max_epochs=2, callbacks=[SampleTranslations(2)], logger=logger)
    trainer.fit(model, data)
    texts = data.texts("validation")
    sources = [texts[place].source for place in (0, len(texts) // 2)]
    assert [(key, step) for key, _, step, _ in logger.images] == [
        (f"attention/{number}", step) for step in (trainer.global_step // 2, trainer.global_step) for number in (1, 2)
    ]
    for source, (_, caption, _, image) in zip(sources, logger.images[2:], strict=True):
        best = model.translate(source, GreedySearch())[0][0]
        assert caption == f"{source} -> {best.text}"
        assert best.attention is not None
        expected = pixels(attention_figure(best.attention, best.source_tokens, best.tokens))
        assert image.shape == expected.shape
        assert np.abs(image.astype(int) - expected).max() <= 1  # two sentences together may differ from one alone by rounding


def test_where_nobody_looks_or_nothing_is_looked_at_no_heat_map_is_drawn(
    data: TranslationData,
    model: Seq2Seq,
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a heat map was drawn")

    monkeypatch.setattr("callbacks.translation_samples.attention_figure", refuse)
    blind = Seq2Seq(data.source_vocab_size, data.target_vocab_size, SMALL, partial(ContextDecoder, network=SMALL))
    for module, sample, kind in (
        (model, SampleTranslations(2), Texts),
        (model, SampleTranslations(2, attention=False), Pictures),
        (blind, SampleTranslations(2), Pictures),
    ):
        logger = kind(tmp_path / "logs")
        make_trainer(max_epochs=1, callbacks=[sample], logger=logger).fit(module, data)
        assert not hasattr(logger, "images")


def test_the_curve_of_a_translation_run_shows_bleu_below_perplexity(
    data: TranslationData, model: Seq2Seq, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    curve = LearningCurve()
    trainer = make_trainer(max_epochs=3, callbacks=[curve], default_root_dir=tmp_path)
    trainer.fit(model, data)
    epoch = trainer.global_step // 3
    for name in ("train/ppl_epoch", "val/ppl", "val/bleu"):
        assert [step for step, _ in curve.points[name]] == [epoch, 2 * epoch, 3 * epoch]
        assert curve.points[name][-1][1] == float(trainer.callback_metrics[name])
    picture = imread(tmp_path / "learning_curve.png")
    assert picture.shape[:2] == (7 * 120, 7 * 120)
    assert all(half[..., :3].std() > 0.05 for half in (picture[: 7 * 60], picture[7 * 60 :]))  # something is drawn on both


def test_translations_are_written_in_the_order_of_the_split(
    data: TranslationData, model: Seq2Seq, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[WriteTranslations()], default_root_dir=tmp_path / "run")
    trainer.predict(model, data, return_predictions=True)
    expected = [model.translate(pair.source)[0][0].text for pair in data.texts("test")]
    assert (tmp_path / "run" / "translations.txt").read_text().splitlines() == expected


def test_a_pair_that_was_left_out_keeps_its_line(
    tmp_path: Path, make_trainer: Callable[..., Trainer], capsys: pytest.CaptureFixture[str]
) -> None:
    sources, targets = ["", "one two", "two", "", "three", "one", ""], ["un", "uno dos", "", "", "tres", "uno", "dos"]
    (tmp_path / "source").write_text("".join(f"{line}\n" for line in sources))
    (tmp_path / "target").write_text("".join(f"{line}\n" for line in targets))
    files: list[dict[Split, FileNames]] = [
        dict.fromkeys(("train", "test"), str(tmp_path / side)) for side in ("source", "target")
    ]
    data = TranslationData(ParallelFiles(*files), cache=str(tmp_path / "cache"))
    model = Seq2Seq(data.source_vocab_size, data.target_vocab_size, SMALL, partial(AttentionDecoder, network=SMALL))
    make_trainer(callbacks=[WriteTranslations()]).predict(model, data, return_predictions=True)
    expected = [model.translate(sources[line])[0][0].text if line in (1, 4, 5) else "" for line in range(7)]
    assert (tmp_path / "translations.txt").read_text() == "".join(f"{line}\n" for line in expected)
    assert ", blank where one of 4 pairs has an empty side\n" in capsys.readouterr().out


def test_the_files_of_two_ranks_are_one_when_merged(tmp_path: Path) -> None:
    pairs = [("a", "x"), ("", "x"), ("b", "y"), ("c", "z"), ("d", "")]
    data = TranslationData(GivenPairs([("a", "x")], test=pairs), cache=str(tmp_path / "cache"))
    for rank, predictions in enumerate(
        [[{"indices": [2], "texts": ["Z"]}, {"indices": [0], "texts": ["X\nX"]}], [{"indices": [1], "texts": ["Y"]}]]
    ):
        trainer: Any = SimpleNamespace(
            log_dir=str(tmp_path), datamodule=data, world_size=2, global_rank=rank, is_global_zero=rank == 0
        )
        WriteTranslations().write_on_epoch_end(trainer, LightningModule(), predictions, None)
    assert (tmp_path / "translations.0.txt").read_text() == "0\tX X\n1\t\n3\tZ\n4\t\n"
    assert (tmp_path / "translations.1.txt").read_text() == "2\tY\n"


def test_samples_refuse_wrong_counts_and_other_modules() -> None:
    with pytest.raises(ValueError, match="SampleTranslations: both count from 1, got count=0, every_n_epochs=1"):
        SampleTranslations(0)
    with pytest.raises(TypeError, match="SampleTranslations needs a Seq2Seq, which translates; LightningModule does not"):
        SampleTranslations().on_validation_epoch_end(Trainer(logger=False, accelerator="cpu"), LightningModule())
