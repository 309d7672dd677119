"""A run tracked by Weights & Biases without an account, read back from the transaction log that it writes."""

import csv
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import wandb
import yaml
from commands import Command
from matplotlib.image import imread
from translation_runs import CONFIG
from wandb.proto import wandb_internal_pb2

from callbacks.heat_map import CELL
from experiments.listing import CONFIGS
from experiments.weights_and_biases import WandbLogger

PART = CONFIGS / "logger" / "wandb.yaml"


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No key, no settings of this machine's user, no repository around the run, and no way out."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")  # its service would report home

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("the test tried to look up a name")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    wandb.teardown()  # a process remembers a key that it has seen


@pytest.fixture
def track(cli: Command, experiment: Path) -> Callable[[str], str]:
    """track(folder): the experiment with samples, tracked; what it printed on standard error."""
    samples = Path("samples.yaml")
    samples.write_text("trainer: {callbacks: [{class_path: callbacks.SampleText, init_args: {prompts: [the, a], length: 3}}]}")

    def run(folder: str) -> str:
        words = ["--config", experiment, "--config", samples, "--config", PART, "--trainer.log_every_n_steps", "5"]
        done = cli("fit", *words, "--run_folder", folder)
        assert done.status == 0, done.err
        return done.err

    return run


def records(folder: Path) -> list[Any]:
    """The records of the only transaction log in a run's folder; W&B's own process may still be writing the last of them."""
    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    for _ in range(300):
        found = []
        for data in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
        if any(record.HasField("exit") for record in found):
            return found
        time.sleep(0.1)
    raise AssertionError(f"{path} does not say that the run has ended")


def chunks(log: bytes) -> Iterator[bytes]:
    """What a log in LevelDB's format holds: blocks of 32 KiB, of parts that each say their length and whether more follow."""
    assert log[:4] == b":W&B"
    position, whole = 7, b""
    while position + 7 <= len(log):
        if 2**15 - position % 2**15 < 7:  # too little left in the block for another part
            position += 2**15 - position % 2**15
            continue
        _, length, kind = struct.unpack_from("<IHB", log, position)
        if position + 7 + length > len(log):  # still being written
            return
        whole += log[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # complete, or the last part
            yield whole
            whole = b""


def merged(items: Any) -> dict[str, Any]:
    """What a record says, with the sections that its keys name."""
    found: dict[str, Any] = {}
    for item in items:
        *sections, last = item.nested_key or [item.key]
        place = found
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = json.loads(item.value_json)
    return found


def config_of(found: list[Any]) -> dict[str, Any]:
    """The configuration that records say, the latest of each part."""
    config: dict[str, Any] = {}
    for record in found:
        config |= merged(record.run.config.update if record.HasField("run") else record.config.update)
    return config


def test_an_offline_run_holds_configuration_metrics_samples_and_curve(track: Callable[[str], str]) -> None:
    printed = track("run")
    (notice,) = (line for line in printed.splitlines() if line.startswith("W&B"))
    synced = Path(notice.rpartition("wandb sync ")[2])
    assert "no API key" in notice
    assert list(synced.glob("run-*.wandb"))
    found = records(Path("run"))

    config = config_of(found)
    assert config["model"]["init_args"]["layer_sizes"] == [8]
    assert config["data"]["init_args"]["steps"] == 8
    assert config["trainer"]["max_epochs"] == 2

    history = [merged(record.history.item) for record in found if record.HasField("history")]
    assert [row["val/ppl"] for row in history if "val/ppl" in row] == [pytest.approx(value) for value in validated("run")]
    assert any("train/loss" in row for row in history)

    summaries = {record.metric.name: record.metric.summary for record in found if record.HasField("metric")}
    assert summaries["val/ppl"].min
    assert summaries["val/loss"].min
    assert summaries["val/accuracy"].max

    tables = [row["samples"] for row in history if "samples" in row]
    media = synced / "files"
    rows = [row for table in tables for row in json.loads((media / table["path"]).read_text())["data"]]
    assert [(step, prompt) for step, prompt, _ in rows] == [(step, prompt) for step in (0, 20, 40) for prompt in ("the", "a")]
    assert all(text for _, _, text in rows)

    (images,) = (row["learning_curve"] for row in history if "learning_curve" in row)
    (picture,) = images["filenames"]
    assert (media / picture).read_bytes().startswith(b"\x89PNG")


def validated(folder: str) -> list[float]:
    with Path(folder, "metrics.csv").open() as file:
        return [float(row["val/ppl"]) for row in csv.DictReader(file) if row["val/ppl"]]


def test_a_translation_run_holds_its_samples_where_they_looked_and_its_scores(cli: Command, tmp_path: Path) -> None:
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(CONFIG))
    words = ["--config", tmp_path / "experiment.yaml", "--config", PART, "--data.cache", tmp_path / "cache"]
    words += ["--trainer.max_epochs", "2", "--trainer.check_val_every_n_epoch", "1"]
    done = cli("fit", *words, "--run_folder", tmp_path / "run")
    assert done.status == 0, done.err
    found = records(tmp_path / "run")
    history = [merged(record.history.item) for record in found if record.HasField("history")]
    logged = [(row["trainer/global_step"], *item) for row in history for item in row.items() if item[0].startswith("attention")]
    samples = re.findall(r"step (\d+): (.*)\n  -> (.*)\n", done.out)
    assert len(samples) == 4
    (files,) = tmp_path.glob("run/wandb/offline-run-*/files")
    for place, ((step, name, images), (*_, source, text)) in enumerate(zip(logged, samples, strict=True)):
        assert (str(step), name) == (samples[place][0], f"attention/{place % 2 + 1}")
        assert images["captions"] == [f"{source} -> {text}"]
        (path,) = images["filenames"]
        height, width, _ = imread(files / path).shape
        assert height > (len(text.split()) + 1) * CELL * 100
        assert width > (len(source.split()) + 1) * CELL * 100  # at 100 dots an inch
    summaries = {record.metric.name: record.metric.summary for record in found if record.HasField("metric")}
    assert all(summaries[f"val/{name}"].max for name in ("bleu", "chrf", "token_accuracy", "sequence_accuracy"))

    tables = [row["translations"] for row in history if "translations" in row]
    rows = [row for table in tables for row in json.loads((files / table["path"]).read_text())["data"]]
    shown = re.findall(r"step (\d+): (.*)\n  -> (.*)\n   = (.*)\n", done.out)
    assert rows == [[int(step), source, reference, text] for step, source, text, reference in shown]
    assert len(rows) == 4

    config = config_of(found)
    assert config["model"]["init_args"]["encoder"]["init_args"]["layer_sizes"] == [32]
    assert config["val/bleu_signature"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|")
    assert "|nc:6|nw:0|" in config["val/chrf_signature"]


def test_a_second_run_in_a_process_is_its_own_and_nothing_is_left_behind(track: Callable[[str], str], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        assert "this run is offline" in track(folder)
    runs = {record.run.run_id for folder in ("one", "two") for record in records(Path(folder)) if record.HasField("run")}
    assert len(runs) == 2
    assert "WANDB_MODE" not in os.environ
    expected = {"one", "two", "cache", "samples.yaml", "train.txt", "held_out.txt", "experiment.yaml", "data.yaml"}
    assert {path.name for path in tmp_path.iterdir()} - {"settings"} == expected


def test_an_offline_run_cannot_upload_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="log_model uploads checkpoints, which an offline run cannot"):
        WandbLogger(save_dir=str(tmp_path), log_model=True)


def test_a_key_makes_a_run_online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    assert not WandbLogger(save_dir=str(tmp_path)).offline
