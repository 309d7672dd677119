"""One table a run: rows of an attempt that went further than its checkpoint go, and everything else stays."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from commands import Command

from experiments.metrics_file import MetricsFile


def table(folder: Path) -> list[dict[str, str]]:
    """The rows, without their empty fields."""
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]


def logged(folder: Path, *rows: tuple[int, dict[str, Any]], begin: int | None = None) -> list[dict[str, str]]:
    """The table after a process has logged these rows, each by its step, where training began at a step."""
    logger = MetricsFile(folder)
    if begin is not None:
        logger.experiment.begin(begin)
    for step, metrics in rows:
        logger.log_metrics(metrics, step)
        logger.save()
    return table(folder)


def test_a_resumed_run_goes_on_after_the_step_of_its_checkpoint(tmp_path: Path) -> None:
    logged(tmp_path, (0, {"loss": 4}), (1, {"loss": 3}), (1, {"val": 9}), (2, {"loss": 2}), (3, {"loss": 1.5}), begin=0)
    assert logged(tmp_path, (2, {"loss": 2.5}), begin=2) == [
        {"step": "0", "loss": "4"},
        {"step": "1", "loss": "3"},
        {"step": "1", "val": "9"},
        {"step": "2", "loss": "2.5"},
    ]


def test_a_validation_that_is_repeated_is_there_once(tmp_path: Path) -> None:
    logged(tmp_path, (0, {"loss": 4}), (1, {"loss": 3}), (1, {"val": 9}), begin=0)
    assert logged(tmp_path, (1, {"val": 8}), (2, {"loss": 2}), begin=2) == [
        {"step": "0", "loss": "4"},
        {"step": "1", "loss": "3"},
        {"step": "1", "val": "8"},
        {"step": "2", "loss": "2"},
    ]


def test_a_run_that_begins_anew_has_a_table_of_its_own(tmp_path: Path) -> None:
    logged(tmp_path, (0, {"loss": 4}), begin=0)
    assert logged(tmp_path, (0, {"nll": 5}), begin=0) == [{"step": "0", "nll": "5"}]


def test_columns_may_become_more_and_a_line_that_was_cut_off_goes(tmp_path: Path) -> None:
    logged(tmp_path, (0, {"loss": 4, "ppl": 9}), begin=0)
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("3.")
    assert logged(tmp_path, (1, {"a": 1}), begin=1) == [{"step": "0", "loss": "4", "ppl": "9"}, {"step": "1", "a": "1"}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_evaluation_in_the_folder_of_a_run_adds_to_its_table(cli: Command, experiment: Path) -> None:
    words = ["--config", experiment, "--run_folder", "run"]
    assert cli("fit", *words, "--trainer.max_epochs", "1").status == 0
    before = table(Path("run"))
    assert cli("test", *words, "--ckpt_path", "run/checkpoints/last.ckpt").status == 0
    (added,) = table(Path("run"))[len(before) :]
    assert table(Path("run"))[: len(before)] == before
    assert "test/ppl" in added


def test_a_resumed_run_has_the_table_of_one_that_was_left_alone(
    cli: Command, variant: Callable[..., Path], tmp_path: Path
) -> None:
    config = variant("trainer.log_every_n_steps", 3)
    for run, epochs in (("whole", 2), ("resumed", 1), ("resumed", 2)):
        words = ["--trainer.max_epochs", str(epochs), "--run_folder", run, "--ckpt_path", "last"]
        assert cli("fit", "--config", config, *words).status == 0
    whole, resumed = (
        [{name: value for name, value in row.items() if name != "train/tokens_per_second"} for row in table(tmp_path / run)]
        for run in ("whole", "resumed")
    )
    assert resumed == whole
