"""How far models of series predict, over many seeds: `python -m experiments.series CONFIG --others CONFIG`."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser
from lightning import Callback, LightningDataModule, LightningModule, seed_everything
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

from callbacks import LearningCurve
from callbacks.forecasts import DrawForecasts
from callbacks.paths import shown
from datamodules.cache import write_whole
from datamodules.series import SeriesData
from datamodules.series_sources import NoisySeries
from experiments.command import command
from experiments.errors import UsageError
from experiments.silent_training import silent_trainer
from lm.series import SeriesModel

PICTURES = (LearningCurve, DrawForecasts)

Errors = dict[int, list[float]]
"""Mean squared errors of a model by steps ahead, one for each seed."""


def series(
    config: str,
    others: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    seeds: int = 20,
    folder: str = "runs/series",
) -> None:
    """Train the models of series experiments with the seeds 1, 2, ... of weights and noise, and test each.

    Prints the median error of each model by steps ahead, and draws it with the quartiles.

    Args:
        config: an experiment's YAML file, whose source is a formula with noise.
        others: those of other models on the same series.
        seeds: how many.
        folder: for the table and the picture.
    """
    if seeds < 2:
        raise UsageError(f"seeds: {seeds} have no quartiles; give 2 or more")
    found: dict[str, Errors] = {}
    noise: set[float] = set()
    for path in map(Path, [config, *others]):
        errors: Errors = {}
        for seed in range(1, seeds + 1):
            tests, variance = tested(path, seed)
            noise.add(variance)
            for horizon, error in tests.items():
                errors.setdefault(horizon, []).append(error)
        found[path.stem] = errors
        print(f"{path.stem}: {seeds} seeds", flush=True)
    if len(noise) > 1:
        raise ValueError(f"series: errors over noise of the variances {sorted(noise)} do not compare; name models of one series")
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    lines = table(found, variance)
    write_whole(place / "errors.md", lines)
    draw(found, variance).savefig(place / "errors.png", dpi=120)
    print(f"{lines}table: {shown(place / 'errors.md')}\npicture: {shown(place / 'errors.png')}")


def tested(path: Path, seed: int) -> tuple[dict[int, float], float]:
    """The test errors of an experiment by steps ahead, once trained with a seed, and the variance of its noise.

    Raises:
        FileNotFoundError, TypeError: if there is no such file, or its series has no noise to draw.
    """
    if not path.is_file():
        raise FileNotFoundError(f"series: there is no file {path}; python -m experiments.run lists the experiments")
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    seed_everything(seed, verbose=False)
    data = instantiate(LightningDataModule, config["data"])
    if not isinstance(data, SeriesData) or not isinstance(data.source, NoisySeries):
        raise TypeError(f"series: {path} has no formula with noise, such as datamodules.series_sources.NoisySine")
    data.source = source = replace(data.source, seed=seed)
    model: SeriesModel = instantiate(LightningModule, config["model"])
    callbacks = [instantiate(Callback, part) for part in config["trainer"].get("callbacks", [])]
    callbacks = [part for part in callbacks if not isinstance(part, PICTURES)]
    trainer = silent_trainer(**{**config["trainer"], "callbacks": callbacks})
    trainer.fit(model, data)
    (errors,) = trainer.test(model, data, verbose=False)
    ahead = {horizon: errors["test/mse" if horizon == 1 else f"test/mse_{horizon}"] for horizon in model.horizons}
    return ahead, source.noise_variance


def instantiate(kind: type, part: Mapping[str, Any]) -> Any:
    """What a part of a config describes."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(kind, "part", required=True)
    return parser.instantiate(parser.parse_object({"part": part})).part


def table(found: Mapping[str, Errors], variance: float) -> str:
    """Medians in Markdown, in units of the noise's variance, which no prediction can fall below in the mean."""
    horizons = sorted({horizon for errors in found.values() for horizon in errors})
    lines = [
        f"| median error / {variance:.4g}, steps ahead | {' | '.join(map(str, horizons))} |",
        f"|---|{'---|' * len(horizons)}",
    ]
    for name, errors in found.items():
        cells = [f"{statistics.median(errors[horizon]) / variance:.3f}" if horizon in errors else "" for horizon in horizons]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def draw(found: Mapping[str, Errors], variance: float) -> Figure:
    """The median over steps ahead for each model, and its quartiles as a bar."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for number, (name, errors) in enumerate(found.items()):
        horizons = sorted(errors)
        medians = [statistics.median(errors[horizon]) for horizon in horizons]
        low, high = zip(*(quartiles(errors[horizon]) for horizon in horizons), strict=True)
        bars = [[m - q for m, q in zip(medians, low, strict=True)], [q - m for m, q in zip(medians, high, strict=True)]]
        places = [horizon * 1.04**number for horizon in horizons]  # side by side
        axes.errorbar(places, medians, bars, marker="o", capsize=3, label=name)
    axes.axhline(variance, color="0.5", linestyle=":", label="variance of the noise")
    axes.set(xscale="log", yscale="log", xlabel="steps ahead", ylabel="mean squared error: median and quartiles of the seeds")
    axes.yaxis.set_major_formatter(LogFormatter(labelOnlyBase=False))  # 0.06 and not 6 x 10^-2
    axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.set_xticks(horizons, [str(horizon) for horizon in horizons], minor=False)
    axes.set_xticks([], minor=True)
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    return figure


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third."""
    first, _, third = statistics.quantiles(values, method="inclusive")
    return first, third


if __name__ == "__main__":
    command(series)
