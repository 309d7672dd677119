"""Translations that a run prints, logs and writes."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from callbacks import SampleTranslations
from callbacks.translation_output import WriteTranslations
from datamodules import TranslationData
from datamodules.number_pairs import NumberPairs
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, Seq2Seq
from mt.search import GreedySearch


class Texts(CSVLogger):
    """Keeps the tables it is given."""

    rows: list[list[Any]]

    def log_text(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        self.rows = [*getattr(self, "rows", []), [key, columns], *data]


@pytest.fixture
def data(tmp_path: Path) -> TranslationData:
    return TranslationData(NumberPairs(target="es", limit=60, test_fraction=0.2), batch_size=16, cache=str(tmp_path / "cache"))


@pytest.fixture
def model(data: TranslationData) -> Seq2Seq:
    small = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8], cell=GRU)
    return Seq2Seq(data.source_vocab_size, data.target_vocab_size, small, partial(AttentionDecoder, network=small))


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


def test_translations_are_written_in_the_order_of_the_split(
    data: TranslationData, model: Seq2Seq, make_trainer: Callable[..., Trainer], tmp_path: Path
) -> None:
    trainer = make_trainer(callbacks=[WriteTranslations()], default_root_dir=tmp_path / "run")
    trainer.predict(model, data, return_predictions=True)
    expected = [model.translate(pair.source)[0][0].text for pair in data.texts("test")]
    assert (tmp_path / "run" / "translations.txt").read_text().splitlines() == expected


def test_samples_refuse_wrong_counts_and_other_modules() -> None:
    with pytest.raises(ValueError, match="SampleTranslations: both count from 1, got count=0, every_n_epochs=1"):
        SampleTranslations(0)
    with pytest.raises(TypeError, match="SampleTranslations needs a Seq2Seq, which translates; LightningModule does not"):
        SampleTranslations().on_validation_epoch_end(Trainer(logger=False, accelerator="cpu"), LightningModule())
