"""Autoregressive models of numbers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning import Trainer
from saving import SaveAt
from two_ranks import bare_trainer, on_two_ranks

from callbacks import HiddenStateReset
from datamodules.series import SeriesData
from datamodules.series_sources import NoisySeries, NoisySine
from datamodules.streams import SequentialStream, SlidingStream, Window
from lm.bidirectional import Bidirectional
from lm.delay_line import DelayLine
from lm.layers import GRU, LSTM
from lm.mogrifier import Mogrifier
from lm.prediction import Prediction
from lm.series import SeriesModel

pytestmark = pytest.mark.usefixtures("seed")

EVERY = partial(SlidingStream, stride=1, random_offset=False)


def line() -> SeriesModel:
    """Predicts x_{t+1} = 2 x_t − x_{t−1}: a straight line goes on."""
    model = SeriesModel([2], DelayLine, standardize=False, horizons=(1, 3))
    with torch.no_grad():
        weight, bias = model.readout.parameters()
        weight.copy_(torch.tensor([[-1.0, 2.0]]))
        bias.zero_()
    return model


def test_a_straight_line_is_continued_from_every_position() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 5.0]])
    assert line().forecast(values, steps=3, positions=2).tolist() == [[[4, 5, 6], [7, 9, 11]]]


def test_predictions_some_steps_ahead_belong_to_the_same_values() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0, 5.0, 6.0]])
    ahead = line().ahead(values, wanted=2)
    assert ahead[1].tolist() == [[7, 7]]  # of the last value from 3, 5, and of the one after it from 5, 6
    assert ahead[3].tolist() == [[5, 6]]  # from 1, 2 and from 2, 3


def test_where_a_series_has_not_begun_there_are_fewer_predictions() -> None:
    ahead = line().ahead(torch.tensor([[1.0, 2.0, 3.0]]), wanted=3)
    assert ahead[1].shape == (1, 3)
    assert ahead[3].shape == (1, 1)
    with pytest.raises(ValueError, match="3 steps ahead need as many values before, and there are 2"):
        line().ahead(torch.zeros(1, 2), wanted=1)


@pytest.mark.parametrize("cell", [GRU, LSTM, DelayLine, Mogrifier])
def test_a_forecast_is_the_model_fed_with_what_it_said(cell: Callable[..., GRU]) -> None:
    model = SeriesModel([4, 4], cell, readout_sizes=[3]).eval()
    model.mean.fill_(1.0)
    model.deviation.fill_(2.0)
    values = torch.randn(2, 6)
    found = model.forecast(values, steps=3, positions=2)
    for position, known in enumerate((values[:, :5], values)):
        series = known
        for step in range(3):
            with torch.no_grad():
                following = model(series)[0][:, -1:]
            torch.testing.assert_close(found[:, position, step], following[:, 0])
            series = torch.cat([series, following], dim=1)


def test_the_deviation_of_the_numbers_changes_nothing_but_their_scale(make_trainer: Callable[..., Trainer]) -> None:
    class Scaled(NoisySeries):
        def signal(self, time: np.ndarray) -> np.ndarray:
            return np.sin(time / 5)

        def values(self) -> np.ndarray:
            return 1000 * super().values() + 5000

    class Plain(Scaled):
        def values(self) -> np.ndarray:
            return NoisySeries.values(self)

    errors = []
    for source in (Scaled(length=120), Plain(length=120)):
        torch.manual_seed(0)
        model, trainer = SeriesModel([4], DelayLine, horizons=(1, 2)), make_trainer(max_epochs=2)
        data = SeriesData(source, stream=EVERY)
        trainer.fit(model, data)
        errors.append({name: float(value) for name, value in trainer.test(model, data, verbose=False)[0].items()})
    assert errors[0].keys() == {"test/mse", "test/mse_2"}
    for name, error in errors[1].items():
        assert errors[0][name] == pytest.approx(1e6 * error, rel=1e-3)


def test_the_test_error_one_step_ahead_is_that_of_the_predictions(make_trainer: Callable[..., Trainer]) -> None:
    data = SeriesData(NoisySine(length=60), validation_fraction=0.2, test_fraction=0.3)
    model, trainer = SeriesModel([3], GRU, horizons=(1, 5)), make_trainer()
    found = trainer.test(model, data, verbose=False)[0]
    values = torch.from_numpy(data.series).float()[None]
    with torch.no_grad():
        predicted = model(values[:, :-1])[0]
    expected = (predicted - values[:, 1:])[:, -18:].square().mean()
    assert found["test/mse"] == pytest.approx(float(expected), rel=1e-5)
    assert trainer.validate(model, data, verbose=False)[0]["val/mse"] == pytest.approx(
        float((predicted - values[:, 1:])[:, 29:41].square().mean()), rel=1e-5
    )


def test_predict_writes_each_value_beside_what_was_said_before_it(make_trainer: Callable[..., Trainer]) -> None:
    data = SeriesData(NoisySine(length=12, noise=0), test_fraction=0.25)
    (predictions,) = make_trainer().predict(line(), data) or []
    assert isinstance(predictions, Prediction)
    assert predictions.columns == ("time", "observed", "1 ahead", "3 ahead")
    assert [row[0] for row in predictions.rows] == ["10", "11", "12"]
    x = NoisySine(length=12, noise=0).values()
    assert predictions.rows[2][1:] == (f"{x[11]:.6g}", f"{2 * x[10] - x[9]:.6g}", f"{x[8] + 3 * (x[8] - x[7]):.6g}")


def test_the_last_position_alone_can_be_trained() -> None:
    model = line()
    model.loss_at = "last"
    model.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    batch = Window(torch.tensor([[9.0, 1.0, 2.0]]), torch.tensor([[0.0, 0.0, 5.0]]))
    assert model.training_step(batch, 0)["loss"] == (5 - 3) ** 2


@pytest.mark.parametrize("carry", [False, True])
def test_a_resumed_run_ends_as_the_one_that_was_not_stopped(
    make_trainer: Callable[..., Trainer], tmp_path: Path, carry: bool
) -> None:
    def run(checkpoint: str | None, *callbacks: SaveAt) -> list[torch.Tensor]:
        torch.manual_seed(0)
        data = SeriesData(NoisySine(length=100), lanes=2, steps=5, stream=SequentialStream)
        model = SeriesModel([3], GRU, carry=carry, output_dropout=0.2)
        make_trainer(max_epochs=2, callbacks=list(callbacks)).fit(model, data, ckpt_path=checkpoint)
        return [value.clone() for value in model.state_dict().values()]

    whole = run(None, SaveAt(8, tmp_path / "half.ckpt"))
    assert all(map(torch.equal, whole, run(str(tmp_path / "half.ckpt"))))
    model = SeriesModel.load_from_checkpoint(tmp_path / "half.ckpt")
    assert model.deviation != 1


def test_settings_that_cannot_be_are_told(make_trainer: Callable[..., Trainer]) -> None:
    with pytest.raises(ValueError, match=r"1 step ahead or more, got \[1, 0\]"):
        SeriesModel(horizons=[1, 0])
    with pytest.raises(ValueError, match="a bidirectional layer has already read"):
        SeriesModel(cell=Bidirectional)
    with pytest.raises(ValueError, match=r"set model\.carry false"):
        make_trainer().fit(SeriesModel(carry=True), SeriesData(NoisySine(), stream=EVERY))
    with pytest.raises(ValueError, match=r"all 60 training values are 0\.0; there is nothing to learn"):
        make_trainer().fit(SeriesModel(), SeriesData(NoisySine(length=100, noise=0, frequency=0), stream=EVERY))


def trained(ranks: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, float]]:
    """Weights, metrics and test errors after two epochs."""
    torch.manual_seed(0)
    data = SeriesData(NoisySine(length=200), lanes=4, steps=5, stream=SequentialStream, validation_fraction=0.2)
    model = SeriesModel([6], GRU, carry=True, horizons=(1, 4), optimizer=partial(torch.optim.SGD, lr=0.1))
    trainer = bare_trainer(ranks, max_epochs=2, callbacks=[HiddenStateReset()])
    trainer.fit(model, data)
    metrics = dict(trainer.callback_metrics)
    (errors,) = trainer.test(model, data, verbose=False)
    return model.state_dict(), metrics, dict(errors)


@pytest.mark.slow
def test_two_ranks_learn_as_one(tmp_path: Path) -> None:
    weights, metrics, errors = trained(1)
    for others, other_metrics, other_errors in on_two_ranks(trained, 2, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)
        for name in ("train/mse_epoch", "val/mse"):
            assert float(other_metrics[name]) == pytest.approx(float(metrics[name]), rel=1e-5), name
        assert other_errors == pytest.approx(errors, rel=1e-5)
