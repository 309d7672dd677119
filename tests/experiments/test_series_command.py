"""Models of series over several seeds."""

from pathlib import Path

import pytest
import yaml
from commands import Call, Command

from experiments.listing import CONFIGS
from experiments.series import series, table

SINE = CONFIGS / "series" / "sine_linear.yaml"


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A sine of 150 points, and one epoch."""
    config = yaml.safe_load(SINE.read_text())
    config["data"]["init_args"]["source"]["init_args"]["length"] = 150
    config["trainer"]["max_epochs"] = 1
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def test_each_seed_trains_and_the_median_is_told(call: Call, small: Path, tmp_path: Path) -> None:
    done = call(series, small, "--seeds", "2", "--folder", tmp_path / "out")
    assert done.status == 0, done.err
    assert "| median error / 0.04, steps ahead | 1 | 4 | 16 | 64 |" in done.out
    assert (tmp_path / "out" / "errors.png").is_file()
    assert (tmp_path / "out" / "errors.md").read_text() in done.out


def test_the_table_is_in_units_of_the_noise() -> None:
    lines = table({"a": {1: [0.04, 0.08, 0.2], 4: [0.4, 0.4, 0.4]}}, 0.04).splitlines()
    assert lines[2] == "| a | 2.000 | 10.000 |"


def test_what_has_no_noise_is_refused(call: Call) -> None:
    config = CONFIGS / "lm" / "quickstart.yaml"
    done = call(series, config)
    assert (done.status, "has no formula with noise" in done.err) == (1, True)
    assert "seeds: 1 have no quartiles" in call(series, SINE, "--seeds", "1").err
    assert "there is no file missing.yaml" in call(series, "missing.yaml").err


def test_a_column_of_ones_own_table_by_flags(cli: Command, tmp_path: Path) -> None:
    table = tmp_path / "prices.csv"
    table.write_text("day,price\n" + "".join(f"{day},{100 + day % 7}\n" for day in range(200)))
    column = ["--data.source", "datamodules.series_sources.Column", "--data.source.file", table]
    quick = ["--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    words = ["--config", SINE, *column, "--data.source.column", "price", "--model.standardize", "true", *quick]
    done = cli("fit", *words, "--run_folder", tmp_path / "run")
    assert done.status == 0, done.err
    again = ["--ckpt_path", tmp_path / "run" / "checkpoints" / "best.ckpt", "--run_folder", tmp_path / "again"]
    assert cli("predict", *words, *again).status == 0
    first, second = (tmp_path / "again" / "predictions.tsv").read_text().splitlines()[:2]
    assert first.split("\t") == ["time", "observed", "1 ahead", "4 ahead", "16 ahead", "64 ahead"]
    assert second.split("\t")[:2] == ["121", "101"]
    table.write_text("day,price\n1,cheap\n")
    assert "error: Column: row 1 of 'price'" in cli("fit", *words, "--run_folder", tmp_path / "other").err
