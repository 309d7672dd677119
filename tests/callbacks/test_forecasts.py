"""A series and what was predicted of it, in one picture."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from tiny_runs import TinyRun

from callbacks.forecasts import DrawForecasts, forecasts_figure
from datamodules.series import SeriesData
from datamodules.series_sources import NoisySine
from lm.series import SeriesModel


def test_every_horizon_is_drawn_over_the_values_that_it_predicts() -> None:
    values = torch.from_numpy(NoisySine(length=30).values()).float()
    above, below = forecasts_figure(SeriesModel(horizons=(1, 4)), values, 20).axes
    lines = {line.get_label(): np.asarray(line.get_xdata()).tolist() for axes in (above, below) for line in axes.get_lines()}
    assert lines["1 step ahead"] == list(range(2, 31))
    assert lines["4 steps ahead"] == list(range(5, 31))
    assert lines["on its own predictions alone"] == list(range(21, 31))


def test_a_fit_and_a_test_write_the_picture(
    make_trainer: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, model = SeriesData(NoisySine(length=60), steps=2, lanes=4), SeriesModel(horizons=(1, 4))
    trainer = make_trainer(max_epochs=1, callbacks=[DrawForecasts()])
    trainer.fit(model, data)
    assert (tmp_path / "forecasts.png").stat().st_size > 10_000
    (tmp_path / "forecasts.png").unlink()
    trainer.test(model, data, verbose=False)
    assert (tmp_path / "forecasts.png").is_file()
    assert "forecasts.png" in capsys.readouterr().out


def test_a_model_of_words_has_none(tiny_run: TinyRun) -> None:
    with pytest.raises(TypeError, match="LanguageModel predicts no series"):
        tiny_run([DrawForecasts()])
