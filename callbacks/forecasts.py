"""Predictions of a series, drawn over the series."""

import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure

from callbacks.paths import run_folder
from callbacks.pictures import keep_picture
from datamodules.series import SeriesData
from datamodules.streams import tensor_of
from lm.series import SeriesModel


class DrawForecasts(Callback):
    """Draws `forecasts.png` into the run's folder after training and after a test, and hands it to loggers that take images.

    Above, each value predicted from all before it, and what the model makes of the part that is held out on its own predictions
    alone. Below, each value k steps ahead, for every horizon of the model.

    Args:
        file: name of the picture.
    """

    def __init__(self, file: str = "forecasts.png") -> None:
        self.file = file

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what has no series to draw."""
        if not isinstance(pl_module, SeriesModel) or not isinstance(getattr(trainer, "datamodule", None), SeriesData):
            raise TypeError(f"DrawForecasts needs a SeriesModel and SeriesData; {type(pl_module).__name__} predicts no series")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self.draw(trainer, pl_module)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw."""
        self.draw(trainer, pl_module)

    def draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the picture, on one rank."""
        path = run_folder(trainer) / self.file
        if not trainer.is_global_zero:
            return
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, SeriesModel)
        values = tensor_of(data.series).to(pl_module.device)
        keep_picture(trainer, forecasts_figure(pl_module, values, data.parts["train"].stop), path, "forecasts", "forecasts")


def forecasts_figure(model: SeriesModel, values: torch.Tensor, held_out: int) -> Figure:
    """The two panels.

    Args:
        model: predicts.
        values: the series, `(time,)`.
        held_out: position of the first value that did not train.
    """
    series = values.cpu()
    time = torch.arange(1, len(series) + 1)
    one, *others = model.ahead(values[None, :-1], len(values) - 1).items()
    alone = model.forecast(values[None, :held_out], len(values) - held_out)[0, 0].cpu() if held_out < len(values) else None
    figure = Figure(figsize=(9, 7), layout="constrained")
    panels = figure.subplots(2, sharex=True, sharey=True)
    for axes in panels:
        axes.plot(time, series, color="0.75", linewidth=0.8, label="data")
        axes.axvline(held_out + 1, color="0.5", linestyle=":", label="held out from here")
    above, below = panels
    horizon, predicted = one
    above.plot(time[-predicted.shape[1] :], predicted[0].cpu(), linewidth=1, label=f"{horizon} step ahead")
    if alone is not None:
        above.plot(time[held_out:], alone, linewidth=1.5, label="on its own predictions alone")
    for number, (horizon, predicted) in enumerate(others, start=1):
        label = f"{horizon} steps ahead"
        below.plot(time[-predicted.shape[1] :], predicted[0].cpu(), color=f"C{number}", linewidth=1, label=label)
    for axes in panels:
        axes.set(ylabel="x")
        axes.grid(alpha=0.3)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=5, frameon=False)  # beside the series, not over it
    below.set(xlabel="time")
    return figure
