"""A run that is killed and resumed is the run that was left alone: real processes, killed without warning."""

import copy
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Command, write_experiment
from translation_runs import CONFIG as TRANSLATION

from callbacks.checkpoint import to_resume_from

WEIGHTS = ("state_dict", "raw_weights", "carried")
TOGETHER = (*WEIGHTS, "optimizer_states", "lr_schedulers", "train_metrics", "generators", "global_step")
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


def averaged(folder: Path, dropout: float = 0.3) -> dict[str, Any]:
    """The language model in windows of varying length, five validations an epoch, and weights that are averaged soon.

    Averaging begins by the accuracy, as if it were a loss: it rises while training is as stable as can be.
    """
    config = language_model(folder, dropout)
    lengths = {"full": 0.7, "deviation": 1.5, "shortest": 2}
    config["data"]["init_args"]["stream"] = {"class_path": "datamodules.variable_stream.VariableStream", "init_args": lengths}
    average = {"class_path": "callbacks.NTASGD", "init_args": {"patience": 3, "monitor": "val/accuracy"}}
    config["trainer"] |= {"val_check_interval": 6, "callbacks": [{"class_path": "callbacks.WindowRescale"}, average]}
    return config


MODELS = {"language model": language_model, "translation": translation, "averaged language model": averaged}


def write(folder: Path, config: dict[str, Any], accumulate: int = 2, every: int = 3) -> Path:
    """The experiment as a file; its last checkpoint is written every few steps of the optimizer."""
    last = {"class_path": "callbacks.LastCheckpoint", "init_args": {"every_n_steps": every}}
    callbacks = [*config["trainer"].get("callbacks", []), last]
    config["trainer"] |= {"max_epochs": 3, "accumulate_grad_batches": accumulate, "callbacks": callbacks}
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


def assert_same_run(one: str, other: str) -> None:
    """Two runs whose last checkpoints are equal in all that matters."""
    mine, theirs = last(one), last(other)
    for part in TOGETHER:
        assert_equal(mine.get(part), theirs.get(part))
    assert_equal(mine["callbacks"].get("NTASGD"), theirs["callbacks"].get("NTASGD"))


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
    assert_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("model", MODELS)
def test_it_does_not_matter_when_a_run_is_killed(model: str, ranks: int, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    config = write(tmp_path, MODELS[model](tmp_path))
    whole = str(tmp_path / "whole")
    assert fit(config, whole, ranks) == 0
    draw = random.Random(f"{model}, {ranks}")
    # By the seventh batch there is a checkpoint; two batches make a step, and an epoch may end in a step of one.
    batches = range(7, 2 * last(whole)["global_step"] - 3)
    for batch in draw.sample(batches, pytestconfig.getoption("kills")):
        broken = str(tmp_path / f"broken_at_{batch}")
        assert fit(config, broken, ranks, killed_at=batch) != 0
        assert last(broken)["global_step"] < last(whole)["global_step"]
        assert fit(config, broken, ranks) == 0
        assert_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_an_epoch_is_resumed_at_its_first_a_middle_and_its_last_batch(model: str, tmp_path: Path) -> None:
    config = write(tmp_path, MODELS[model](tmp_path), accumulate=1, every=1)
    whole = str(tmp_path / "whole")
    assert fit(config, whole, 1) == 0
    batches = last(whole)["global_step"] // 3
    for batch in (batches, batches + 1, batches + batches // 2, 2 * batches - 1):
        broken = str(tmp_path / f"broken_at_{batch}")
        assert fit(config, broken, 1, killed_at=batch) == -9
        assert last(broken)["global_step"] == batch
        assert fit(config, broken, 1) == 0
        assert_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_an_epoch_that_has_not_quite_ended_is_ended_by_the_resumed_run(model: str, tmp_path: Path) -> None:
    config = write(tmp_path, MODELS[model](tmp_path), accumulate=1, every=1)
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert fit(config, whole, 1) == 0
    batches = last(whole)["global_step"] // 3
    assert fit(config, broken, 1, killed_at=2 * batches, options=["--trainer.callbacks.end=true"]) == -9
    assert last(broken)["global_step"] == 2 * batches - 1
    assert fit(config, broken, 1) == 0
    assert_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_is_resumed_before_at_and_after_the_validation_that_lets_it_average(ranks: int, tmp_path: Path) -> None:
    config = write(tmp_path, averaged(tmp_path), accumulate=1, every=1)
    whole = str(tmp_path / "whole")
    assert fit(config, whole, ranks) == 0
    state = last(whole)["callbacks"]["NTASGD"]
    begins = last(whole)["global_step"] - state["steps"]
    assert 6 < begins < last(whole)["global_step"] // 2
    for batch in (begins - 2, begins, begins + 1, begins + 2):
        broken = str(tmp_path / f"broken_at_{batch}")
        assert fit(config, broken, ranks, killed_at=batch) != 0
        assert last(broken)["global_step"] == batch
        assert ("raw_weights" in last(broken)) == (batch >= begins)
        assert fit(config, broken, ranks) == 0
        assert_same_run(broken, whole)


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_goes_on_with_more_or_fewer_processes(model: str, before: int, after: int, tmp_path: Path) -> None:
    config = write(tmp_path, MODELS[model](tmp_path, dropout=0.0))
    whole, broken = str(tmp_path / "whole"), str(tmp_path / "broken")
    assert fit(config, whole, 1) == 0
    assert fit(config, broken, before, killed_at=29) != 0
    assert fit(config, broken, after) == 0
    for part in WEIGHTS:
        assert_equal(last(broken).get(part), last(whole).get(part), tolerance=1e-5)
    assert last(broken)["global_step"] == last(whole)["global_step"]


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(cli: Command, experiment: Path) -> None:
    words = ["fit", "--config", experiment, "--run_folder", "run", "--ckpt_path", "last"]
    assert cli(*words).status == 0
    path = Path("run/checkpoints/last.ckpt")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.warns(
        UserWarning, match=r"last\.ckpt cannot be read .* it is damaged.* goes on from the one before, .*previous\.ckpt"
    ):
        done = cli(*words, "--trainer.max_epochs", "3")
    assert done.status == 0, done.err
    assert last("run")["epoch"] == 2
    for name in ("last", "previous"):
        path.with_name(f"{name}.ckpt").write_bytes(b"nothing")
    done = cli(*words)
    assert done.status == 1
    assert "checkpoint: run/checkpoints/last.ckpt cannot be read" in done.err


def test_the_last_checkpoint_of_a_module_of_another_kind_is_found_too(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "last.ckpt")
    assert to_resume_from(tmp_path) == tmp_path / "last.ckpt"


def test_a_run_that_has_not_begun_begins(cli: Command, experiment: Path) -> None:
    done = cli("fit", "--config", experiment, "--run_folder", "run", "--ckpt_path", "last", "--trainer.max_epochs", "1")
    assert done.status == 0, done.err
    done = cli("fit", "--config", experiment, "--ckpt_path", "last")
    assert done.status == 2
    assert "--ckpt_path last looks into the folder of a run: name it with --run_folder" in done.err


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("lanes", 8, "with lanes=4, and here it is 8"),
        ("steps", 5, "with steps=8, and here it is 5"),
        ("seed", 3, "with seed=0, and here it is 3"),
        ("stream.random_offset", "false", "with random_offset=True, and here it is False"),
    ],
)
def test_a_position_in_other_data_is_refused(cli: Command, experiment: Path, setting: str, value: int | str, said: str) -> None:
    words = ["fit", "--config", experiment, "--run_folder", "run", "--ckpt_path", "last"]
    assert cli(*words, "--trainer.max_epochs", "1").status == 0
    done = cli(*words, f"--data.{setting}", str(value))
    assert done.status == 1
    assert f"resume: the checkpoint stopped in training data {said}: resume with the data and settings of then" in done.err


def test_another_corpus_is_refused(cli: Command, experiment: Path) -> None:
    words = ["fit", "--config", experiment, "--run_folder", "run", "--ckpt_path", "last"]
    assert cli(*words, "--trainer.max_epochs", "1").status == 0
    corpus = experiment.with_name("train.txt")
    corpus.write_text("\n".join(reversed(corpus.read_text().splitlines())) + "\n")
    done = cli(*words)
    assert done.status == 1
    assert "training data with corpus=" in done.err


def test_a_folder_that_cannot_be_written_is_named_before_anything_runs(cli: Command, experiment: Path) -> None:
    done = cli("fit", "--config", experiment, "--run_folder", str(experiment / "run"))
    assert done.status == 1
    assert f"run folder: {experiment / 'run'} cannot be written (Not a directory): name another with --run_folder" in done.err


@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root alone")
def test_a_full_disk_leaves_the_checkpoint_before(cli: Command, experiment: Path) -> None:
    folder = experiment.with_name("small")
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        words = ["fit", "--config", experiment, "--run_folder", folder / "run", "--ckpt_path", "last"]
        assert cli(*words, "--trainer.max_epochs", "1").status == 0
        free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize
        (folder / "filler").write_bytes(b"0" * (free - 5000))
        done = cli(*words)
        assert done.status == 1
        assert "cannot be written (No space left on device); what was written before is intact" in done.err
        assert last(str(folder / "run"))["epoch"] == 0
        (folder / "filler").unlink()
        assert cli(*words).status == 0
        assert last(str(folder / "run"))["epoch"] == 1
    finally:
        subprocess.run(["umount", str(folder)], check=True)
