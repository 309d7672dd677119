"""A run that is killed and resumed is the run that was left alone: real processes, killed without warning."""

import copy
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import write_experiment
from translation_runs import CONFIG as TRANSLATION

TOGETHER = ("state_dict", "optimizer_states", "lr_schedulers", "carried", "train_metrics", "generators", "global_step")
"""What a run is made of: two with the same of all this go on in the same way."""


def language_model(folder: Path, dropout: float = 0.3) -> dict[str, Any]:
    """An LSTM whose state is carried through 24 batches an epoch, two a step of the optimizer, in three epochs."""
    config: dict[str, Any] = yaml.safe_load(write_experiment(folder).read_text())
    config["data"]["init_args"] |= {"lanes": 4, "steps": 6}
    config["model"]["init_args"] |= {
        "input_dropout": dropout,
        "output_dropout": dropout,
        "schedule": {
            "scheduler": {"class_path": "torch.optim.lr_scheduler.OneCycleLR", "init_args": {"max_lr": 0.02}},
            "total_steps_as": "total_steps",
        },
    }
    return config


def translation(folder: Path, dropout: float = 0.3) -> dict[str, Any]:
    """Attention after a GRU; 17 batches an epoch, so that the last step of two has one."""
    config: dict[str, Any] = copy.deepcopy(TRANSLATION)
    config["data"]["init_args"] |= {"cache": str(folder / "cache"), "pool": 3}
    arguments = config["model"]["init_args"]
    arguments["encoder"]["init_args"]["input_dropout"] = dropout
    arguments["decoder"]["init_args"]["output_dropout"] = dropout
    arguments["schedule"] = {
        "scheduler": {"class_path": "torch.optim.lr_scheduler.ExponentialLR", "init_args": {"gamma": 0.98}},
        "interval": "step",
    }
    config["trainer"] |= {"check_val_every_n_epoch": 1}
    return config


MODELS = {"language model": language_model, "translation": translation}


def write(folder: Path, config: dict[str, Any], accumulate: int = 2) -> Path:
    """The experiment as a file; its last checkpoint is written every three steps of the optimizer."""
    config["trainer"] |= {
        "max_epochs": 3,
        "accumulate_grad_batches": accumulate,
        "callbacks": [{"class_path": "callbacks.LastCheckpoint", "init_args": {"every_n_steps": 3}}],
    }
    path = folder / "resumed.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def fit(config: Path, run: str, ranks: int, killed_at: int | None = None, options: Sequence[str] = ()) -> int:
    """Train in a process of its own, or in so many; the status of the first one."""
    words = ["fit", "--config", str(config), "--run_folder", run, "--ckpt_path", "last"]
    if ranks > 1:
        words += ["--trainer.devices", str(ranks), "--trainer.strategy", "ddp"]
    if killed_at is not None:
        words += ["--trainer.callbacks+=killing.Kill", f"--trainer.callbacks.batch={killed_at}"]
        words += [f"--trainer.callbacks.rank={ranks - 1}"]
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search}
    command = [sys.executable, "-m", "experiments.run", *words, *options]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300).returncode


def last(run: str) -> dict[str, Any]:
    """The last checkpoint of a run."""
    found: dict[str, Any] = torch.load(Path(run) / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def leaves(value: Any) -> list[Any]:
    """Everything in lists and dictionaries nested in any way."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in (key, *leaves(value[key]))]
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list | tuple) else [value]


def assert_equal(one: Any, other: Any, tolerance: float = 0.0) -> None:
    """Tensors within a tolerance, all else as it is."""
    for mine, theirs in zip(leaves(one), leaves(other), strict=True):
        if isinstance(mine, torch.Tensor):
            torch.testing.assert_close(mine, theirs, rtol=0.0, atol=tolerance)
        else:
            assert mine == theirs


@pytest.mark.parametrize("model", MODELS)
def test_a_killed_run_goes_on_as_if_nothing_had_happened(model: str, tmp_path: Path) -> None:
    config = write(tmp_path, MODELS[model](tmp_path))
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert fit(config, whole, 1) == 0
    assert fit(config, broken, 1, killed_at=29) == -9
    assert 0 < last(broken)["global_step"] < last(whole)["global_step"]
    assert fit(config, broken, 1) == 0
    for part in TOGETHER:
        assert_equal(last(broken)[part], last(whole)[part])
