"""The command line: what a run leaves behind, how configurations combine, and what a checkpoint brings along."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import Command

from lm import LanguageModel


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in rows(folder) if row[name]]


def config_of(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return config


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(checkpoint, weights_only=True)["state_dict"]
    return state


def test_a_run_leaves_its_configuration_metrics_checkpoints_and_curve(trained: Path) -> None:
    found = {str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file()}
    checkpoints = {f"checkpoints/{name}.ckpt" for name in ("best", "last", "previous")}
    assert found == {"config.yaml", "metrics.csv", "learning_curve.png"} | checkpoints
    first, second = column(trained, "val/ppl")
    assert second < first


def test_a_run_is_named_after_its_experiment_and_reports_where_it_lies(cli: Command, experiment: Path) -> None:
    done = cli("fit", "--config", experiment, "--trainer.max_epochs", "1", "--trainer.num_sanity_val_steps", "-1")
    assert done.status == 0, done.err
    (folder,) = Path("runs/experiment").iterdir()
    assert f"checkpoint: {folder}/checkpoints/best.ckpt" in done.out
    assert f"curve: {folder}/learning_curve.png" in done.out
    assert "before training" in done.out


def test_two_runs_in_one_process_take_folders_of_their_own(cli: Command, experiment: Path) -> None:
    for _ in range(2):
        assert cli("fit", "--config", experiment, "--trainer.max_epochs", "1").status == 0
    assert len(list(Path("runs/experiment").iterdir())) == 2


def test_the_vocabulary_of_the_data_sizes_the_model(trained: Path) -> None:
    model = LanguageModel.load_from_checkpoint(trained / "checkpoints" / "best.ckpt")
    assert model.vocab_size == len(model.text_tokenizer()) == 2 + 4 + 3 + 2  # reserved, nouns, verbs, "the" and "."


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_a_checkpoint_brings_its_model(cli: Command, trained: Path, subcommand: str, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    data = trained.parent / "data.yaml"
    done = cli(subcommand, "--config", data, "--ckpt_path", checkpoint, "--run_folder", tmp_path / "run")
    assert done.status == 0, done.err
    assert config_of(tmp_path / "run")["model"]["init_args"]["layer_sizes"] == [8]
    if subcommand == "predict":
        lines = (tmp_path / "run" / "predictions.tsv").read_text().splitlines()
        held_out = (trained.parent / "held_out.txt").read_text().split()
        assert len(lines) == 1 + len(held_out) + 16 - 1  # a heading; every token and line end but the first
    else:
        name = {"validate": "val", "test": "test"}[subcommand]
        assert column(tmp_path / "run", f"{name}/ppl") == pytest.approx(column(trained, "val/ppl")[-1:], rel=1e-6)


def test_predictions_of_the_training_text_stand_beside_it(cli: Command, trained: Path, tmp_path: Path) -> None:
    words = ["--config", trained.parent / "data.yaml", "--ckpt_path", trained / "checkpoints" / "best.ckpt"]
    lanes = ["--data.predict_split", "train", "--data.evaluation_lanes", "1"]
    assert cli("predict", *words, *lanes, "--run_folder", tmp_path / "run").status == 0
    heading, *lines = (tmp_path / "run" / "predictions.tsv").read_text().splitlines()
    text = (trained.parent / "train.txt").read_text().replace("\n", " <eos> ").split()
    assert heading == "target\tpredicted"
    assert [line.split("\t")[0] for line in lines] == text[1:]
    assert sum(len(set(line.split("\t"))) == 1 for line in lines) > len(lines) / 3  # it has learned something


def test_flags_win_over_what_a_checkpoint_says(cli: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    words = ["--config", trained.parent / "data.yaml", "--ckpt_path", checkpoint, "--trainer.max_epochs", "3"]
    for name, flags in {"plain": [], "dropped": ["--model.output_dropout", "0.9"]}.items():
        assert cli("fit", *words, "--run_folder", tmp_path / name, *flags).status == 0
    assert config_of(tmp_path / "dropped")["model"]["init_args"]["output_dropout"] == 0.9
    assert config_of(tmp_path / "dropped")["model"]["init_args"]["layer_sizes"] == [8]
    assert column(tmp_path / "dropped", "train/ppl_epoch") > column(tmp_path / "plain", "train/ppl_epoch")


def test_a_resumed_run_continues_with_the_learning_rate_it_is_given(cli: Command, trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints" / "last.ckpt"
    words = ["--config", trained.parent / "experiment.yaml", "--ckpt_path", checkpoint, "--trainer.max_epochs", "3"]
    for rate in ("0.01", "0.0"):
        folder = tmp_path / rate
        assert cli("fit", *words, "--model.optimizer.lr", rate, "--run_folder", folder).status == 0
        steps = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
        assert steps == torch.load(checkpoint, weights_only=True)["global_step"] * 3 / 2
    assert column(tmp_path / "0.01", "val/ppl")[-1] < column(trained, "val/ppl")[-1]
    still = weights(tmp_path / "0.0" / "checkpoints" / "last.ckpt")
    assert all(torch.equal(value, still[name]) for name, value in weights(checkpoint).items())


def test_a_run_stopped_and_resumed_equals_one_that_was_not(cli: Command, experiment: Path) -> None:
    words = ["fit", "--config", experiment]
    assert cli(*words, "--run_folder", "whole").status == 0
    assert cli(*words, "--run_folder", "first", "--trainer.max_epochs", "1").status == 0
    assert cli(*words, "--run_folder", "second", "--ckpt_path", "first/checkpoints/last.ckpt").status == 0
    whole, second = (weights(Path(name, "checkpoints/last.ckpt")) for name in ("whole", "second"))
    assert all(torch.equal(value, second[name]) for name, value in whole.items())


def test_the_last_checkpoint_is_newer_than_a_best_one_that_later_epochs_did_not_beat(cli: Command, trained: Path) -> None:
    words = ["--ckpt_path", trained / "checkpoints/last.ckpt", "--trainer.max_epochs", "4", "--model.optimizer.lr", "3"]
    folder = trained.parent / "worse"
    assert cli("fit", "--config", trained.parent / "experiment.yaml", *words, "--run_folder", folder).status == 0
    epochs = {path.stem: torch.load(path, weights_only=True)["epoch"] for path in (folder / "checkpoints").iterdir()}
    assert epochs["last"] == 3
    assert epochs["best"] == 2 + min(range(2), key=column(folder, "val/ppl").__getitem__)


def test_a_seed_decides_a_run(cli: Command, experiment: Path) -> None:
    for folder, seed in (("one", "1"), ("same", "1"), ("other", "2")):
        assert cli("fit", "--config", experiment, "--seed_everything", seed, "--run_folder", folder).status == 0
    one, same, other = (column(Path(folder), "val/ppl") for folder in ("one", "same", "other"))
    assert one == same != other


@pytest.mark.parametrize(("key", "expected"), [("callbacks", ["clipping"]), ("callbacks+", ["tying", "clipping"])])
def test_a_later_config_replaces_a_list_and_a_plus_adds_to_it(
    cli: Command, experiment: Path, key: str, expected: list[str]
) -> None:
    tying = {"class_path": "callbacks.WeightTying"}
    clipping = {"class_path": "callbacks.GradientClipping", "init_args": {"norm": 1.0}}
    first, second = Path("first.yaml"), Path("second.yaml")
    first.write_text(yaml.safe_dump({"trainer": {"callbacks": [tying], "max_epochs": 1}}))
    second.write_text(yaml.safe_dump({"trainer": {key: [clipping]}, "data": {"init_args": {"lanes": 2}}}))
    words = [word for path in (experiment, first, second) for word in ("--config", path)]
    assert cli("fit", *words, "--run_folder", "run").status == 0
    config = config_of(Path("run"))
    paths = [part["class_path"] for part in config["trainer"]["callbacks"]]
    assert paths == [{"tying": "callbacks.WeightTying", "clipping": "callbacks.GradientClipping"}[name] for name in expected]
    assert (config["data"]["init_args"]["lanes"], config["data"]["init_args"]["steps"]) == (2, 8)


def test_what_the_trainer_turns_off_stays_off(cli: Command, experiment: Path) -> None:
    words = ["--trainer.enable_checkpointing", "false", "--trainer.logger", "false", "--trainer.limit_val_batches", "0"]
    assert cli("fit", "--config", experiment, *words, "--run_folder", "run").status == 0
    assert {path.name for path in Path("run").rglob("*")} == {"config.yaml", "learning_curve.png"}


def test_a_run_without_validation_keeps_its_latest_weights(
    cli: Command, experiment: Path, variant: Callable[[str, Any], Path]
) -> None:
    source = {"class_path": "datamodules.sources.Files", "init_args": {"train": str(experiment.with_name("train.txt"))}}
    assert cli("fit", "--config", variant("data.source", source), "--run_folder", "run").status == 0
    best, last = (weights(Path("run/checkpoints", name)) for name in ("best.ckpt", "last.ckpt"))
    assert all(torch.equal(value, last[name]) for name, value in best.items())


def test_a_plain_lightning_module_and_its_data_run_test_and_resume(cli: Command, on_path: Path) -> None:
    (on_path / "plain_parts.py").write_text(PLAIN_PARTS)
    config = on_path / "plain.yaml"
    trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    parts = {"model": {"class_path": "plain_parts.Line"}, "data": {"class_path": "plain_parts.Points"}}
    config.write_text(yaml.safe_dump({**parts, "trainer": trainer}))
    done = cli("fit", "--config", config, "--run_folder", on_path / "run")
    assert done.status == 0, done.err
    last = on_path / "run" / "checkpoints" / "last.ckpt"
    done = cli("fit", "--config", config, "--ckpt_path", last, "--trainer.max_epochs", "3", "--run_folder", on_path / "on")
    assert done.status == 0, done.err
    assert torch.load(on_path / "on" / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] == 2


PLAIN_PARTS = """
import torch
from lightning import LightningDataModule, LightningModule

class Line(LightningModule):
    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.rate = rate
    def training_step(self, batch, index):
        return (self.layer(batch) - 2 * batch).square().mean()
    def validation_step(self, batch, index):
        self.log("val/error", (self.layer(batch) - 2 * batch).abs().mean())
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate)

class Points(LightningDataModule):
    def setup(self, stage):
        self.points = torch.linspace(-1, 1, 8).unsqueeze(1)
    def train_dataloader(self):
        return torch.utils.data.DataLoader(self.points, batch_size=4)
    def val_dataloader(self):
        return torch.utils.data.DataLoader(self.points, batch_size=4)
"""
