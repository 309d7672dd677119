"""The command that finds a learning rate leaves a line and a picture, and nothing else."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import Finished

from experiments.find_learning_rate import main

Find = Callable[..., Finished]


@pytest.fixture
def find(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Find:
    """find(*words): `python -m experiments.find_learning_rate` in this process."""

    def call(*words: str | Path) -> Finished:
        monkeypatch.setattr(sys, "argv", ["find_learning_rate", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        return Finished(int(end.value.code or 0), *capsys.readouterr())

    return call


PARTS = [
    {"class_path": "callbacks.WeightTying"},
    {"class_path": "callbacks.GradientClipping", "init_args": {"norm": 1.0}},
    {"class_path": "callbacks.LastCheckpoint", "init_args": {"every_n_steps": 1}},
    {"class_path": "callbacks.BestCheckpoint", "init_args": {"keep": 2}},
    {"class_path": "callbacks.CheckpointAverage"},
    {"class_path": "callbacks.SampleText"},
    {"class_path": "callbacks.WindowRescale"},
    {"class_path": "callbacks.NTASGD"},
    {"class_path": "lightning.pytorch.callbacks.EarlyStopping", "init_args": {"monitor": "val/ppl"}},
]


def test_it_tells_a_rate_and_leaves_a_picture(find: Find, variant: Callable[[str, Any], Path], tmp_path: Path) -> None:
    done = find(
        *("--config", variant("trainer.callbacks", PARTS), "--finder.steps", "60", "--finder.highest", "1"),
        *("--run_folder", tmp_path / "run"),
    )
    assert done.status == 0, done.err
    (line,) = [line for line in done.out.splitlines() if line]
    assert line.startswith("learning rate: ")
    assert line.endswith("a tenth of that with the lowest loss: run/learning_rate.png")
    assert 1e-6 < float(line.split()[2].rstrip(",")) < 0.1
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["learning_rate.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--ckpt_path", "last"], "error: --ckpt_path goes on with a schedule; for trained weights give the experiment"),
        (["--finder.steps", "5"], "in 20 steps or more, got lowest=1e-06, highest=10.0, steps=5"),
        (["--finder.lowest", "many"], "error: finder.lowest"),
        (["--finder.lowest=1e2", "--finder.highest=1e4"], "error: learning rate: the loss does not fall from a rate of 1e+02 on"),
    ],
)
def test_what_is_wrong_is_one_sentence(find: Find, experiment: Path, words: list[str], told: str) -> None:
    done = find("--config", experiment, "--run_folder", experiment.parent / "run", *words)
    assert done.status in (1, 2)
    (line,) = [line for line in done.err.splitlines() if line.startswith("error:")]
    assert told in line
