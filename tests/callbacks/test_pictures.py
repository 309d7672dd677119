"""Pictures that one rank draws while the others go on."""

from pathlib import Path

import pytest
import torch
from two_ranks import bare_trainer, on_two_ranks

from callbacks import DrawForecasts, GradientFlow
from datamodules.builtin import HumanNumbers
from datamodules.language import LanguageData
from datamodules.series import SeriesData
from datamodules.series_sources import NoisySine
from lm.layers import RNN
from lm.module import LanguageModel
from lm.series import SeriesModel


def draw(folder: Path) -> list[float]:
    """Train a model of each kind, whose picture is drawn at its end, and test the one of a series, which draws again."""
    torch.manual_seed(0)
    data, model = SeriesData(NoisySine(length=60), steps=2, lanes=4), SeriesModel([3], RNN, horizons=(1, 4))
    trainer = bare_trainer(2, max_epochs=1, default_root_dir=folder, callbacks=[DrawForecasts()])
    trainer.fit(model, data)
    (errors,) = trainer.test(model, data, verbose=False)
    text = LanguageData(HumanNumbers(limit=20), lanes=2, steps=8, cache=str(folder))
    words = LanguageModel(text.vocab_size, 4, [4], RNN)
    bare_trainer(2, max_epochs=1, default_root_dir=folder, callbacks=[GradientFlow()]).fit(words, text)
    return [*errors.values(), float(sum(weight.sum() for weight in words.parameters()))]


@pytest.mark.slow
def test_one_of_two_ranks_draws_and_both_end_alike(tmp_path: Path) -> None:
    first, second = on_two_ranks(draw, tmp_path, folder=tmp_path)
    assert first == pytest.approx(second)
    for name in ("forecasts.png", "gradient_flow.png"):
        assert (tmp_path / name).stat().st_size > 10_000
