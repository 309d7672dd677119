"""Which checkpoints a run keeps, by what its configuration says of them."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Command
from translation_runs import CONFIG

from mt import Seq2Seq


def state_of(checkpoint: dict[str, Any], callback: str) -> dict[str, Any]:
    """What a callback has saved of itself."""
    (state,) = (state for key, state in checkpoint["callbacks"].items() if key.startswith(callback))
    found: dict[str, Any] = state
    return found


def test_the_best_translators_are_kept_by_bleu_and_averaged_beside_the_last_one(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(CONFIG))
    parts = [
        {"class_path": "callbacks.BestCheckpoint", "init_args": {"keep": 2}},
        {"class_path": "callbacks.CheckpointAverage"},
    ]
    settings = {"callbacks": parts, "max_epochs": 6, "check_val_every_n_epoch": 1, "val_check_interval": 0.5}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"trainer": settings}))
    words = ["--config", tmp_path / "experiment.yaml", "--config", tmp_path / "settings.yaml"]
    done = cli("fit", *words, "--data.cache", tmp_path / "cache", "--run_folder", tmp_path / "run")
    assert done.status == 0, done.err

    folder = tmp_path / "run" / "checkpoints"
    paths = sorted(folder.glob("best-epoch=*-step=*.ckpt"))
    assert {path.name for path in folder.iterdir()} == {
        "last.ckpt",
        "previous.ckpt",
        "average.ckpt",
        *(path.name for path in paths),
    }
    kept = [torch.load(path, weights_only=True) for path in paths]
    last = torch.load(folder / "last.ckpt", weights_only=True)
    assert state_of(last, "BestCheckpoint")["monitor"] == "val/bleu"
    assert last["epoch"] == 5
    with (tmp_path / "run" / "metrics.csv").open() as file:
        bleu = [float(row["val/bleu"]) for row in csv.DictReader(file) if row["val/bleu"]]
    assert len(bleu) == 12
    scores = sorted(float(state_of(saved, "BestCheckpoint")["current_score"]) for saved in kept)
    assert scores == pytest.approx(sorted(bleu)[-2:], abs=1e-4)
    for name, value in Seq2Seq.load_from_checkpoint(folder / "average.ckpt").state_dict().items():
        torch.testing.assert_close(value, (kept[0]["state_dict"][name] + kept[1]["state_dict"][name]) / 2)


@pytest.mark.parametrize(
    ("class_path", "arguments", "expected"),
    [
        ("lightning.pytorch.callbacks.ModelCheckpoint", {"filename": "own"}, {"own.ckpt", "last.ckpt", "previous.ckpt"}),
        ("lightning.pytorch.callbacks.ModelCheckpoint", {"filename": "own", "save_last": True}, {"own.ckpt", "last.ckpt"}),
        ("callbacks.LastCheckpoint", {}, {"best.ckpt", "last.ckpt", "previous.ckpt"}),
        ("callbacks.BestCheckpoint", {"monitor": "val/accuracy", "mode": "max"}, {"best.ckpt", "last.ckpt", "previous.ckpt"}),
    ],
)
def test_one_callback_for_checkpoints_leaves_the_other_where_it_is(
    cli: Command, variant: Callable[[str, Any], Path], class_path: str, arguments: dict[str, Any], expected: set[str]
) -> None:
    config = variant("trainer.callbacks", [{"class_path": class_path, "init_args": arguments}])
    done = cli("fit", "--config", config, "--run_folder", "run")
    assert done.status == 0, done.err
    assert {path.name for path in Path("run/checkpoints").iterdir()} == expected
    last = torch.load("run/checkpoints/last.ckpt", weights_only=True)
    assert last["epoch"] == 1
    if class_path == "callbacks.BestCheckpoint":
        assert state_of(last, "BestCheckpoint")["monitor"] == "val/accuracy"
