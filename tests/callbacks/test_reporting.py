"""Callbacks that tell what training does and must not change it: samples, curve, throughput, report, predictions, checkpoints."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from matplotlib.image import imread
from tiny_runs import LINES, TinyRun, same
from torch.utils.data import DataLoader

from callbacks import CheckpointAverage, HiddenStateReset, LearningCurve, RunReport, SampleText, Throughput
from callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from callbacks.predictions import WritePredictions
from datamodules.language import LanguageData
from lm import LanguageModel, Sampling
from lm.prediction import Prediction


class Notebook(Logger):
    """A logger that keeps texts and pictures."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.save_folder = folder
        self.rows: list[list[Any]] = []
        self.images: list[str] = []

    @property
    def name(self) -> str:
        return "notebook"

    @property
    def version(self) -> int:
        return 0

    @property
    def save_dir(self) -> str:
        return str(self.save_folder)

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None: ...
    def log_hyperparams(self, params: Any, *_: Any, **__: Any) -> None: ...

    def log_text(self, key: str, columns: list[str], data: list[list[Any]]) -> None:
        assert (key, columns) == ("samples", ["step", "prompt", "text"])
        self.rows += data

    def log_image(self, key: str, images: list[str]) -> None:
        assert key == "learning_curve"
        self.images += images


# Samples


def test_samples_are_printed_before_training_and_at_intervals_and_logged(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = Notebook(tmp_path)
    samples = SampleText(["the cat", "a"], length=3, every_n_epochs=2)
    trainer = tiny_run([samples], trainer={"max_epochs": 5, "logger": notebook}).trainer
    epoch = trainer.global_step // 5
    printed = re.findall(r"^step (\d+): (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert [int(step) for step, _ in printed] == [step for step in (0, 2 * epoch, 4 * epoch) for _ in range(2)]
    assert [[str(step), text] for step, _, text in notebook.rows] == [list(pair) for pair in printed]
    assert all(text.startswith(prompt) for _, prompt, text in notebook.rows)


def test_samples_do_not_change_training(tiny_run: TinyRun) -> None:
    dropped = {"output_dropout": 0.3, "input_dropout": 0.3}
    assert same(tiny_run([SampleText(["the"], length=5)], model=dropped), tiny_run(model=dropped))


def test_a_resumed_run_does_not_sample_again_what_it_began_with(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_run(trainer={"max_epochs": 1}).trainer.save_checkpoint(tmp_path / "half.ckpt")
    trainer = tiny_run([SampleText(["the"], sampling=Sampling(temperature=0))], checkpoint=str(tmp_path / "half.ckpt")).trainer
    assert re.findall(r"step (\d+)", capsys.readouterr().out) == [str(trainer.global_step)]


def test_samples_refuse_a_wrong_interval_and_other_modules() -> None:
    with pytest.raises(ValueError, match="every_n_epochs counts from 1, got 0"):
        SampleText(every_n_epochs=0)
    with pytest.raises(TypeError, match="LightningModule does not"):
        SampleText().sample(Trainer(logger=False, accelerator="cpu"), LightningModule())


# Curve


def test_the_curve_is_a_picture_of_every_epoch(tiny_run: TinyRun, tmp_path: Path) -> None:
    curve, notebook = LearningCurve(), Notebook(tmp_path / "run")
    trainer = tiny_run([curve], trainer={"max_epochs": 3, "logger": notebook}).trainer
    epoch = trainer.global_step // 3
    for name in ("train/ppl_epoch", "val/ppl"):
        assert [step for step, _ in curve.points[name]] == [epoch, 2 * epoch, 3 * epoch]
        assert curve.points[name][-1][1] == float(trainer.callback_metrics[name])
        assert len({value for _, value in curve.points[name]}) == 3
    picture = imread(tmp_path / "run" / "learning_curve.png")
    assert picture.shape[:2] == (4 * 120, 7 * 120)
    assert picture[..., :3].std() > 0.05  # something is drawn on it
    assert notebook.images == [str(tmp_path / "run" / "learning_curve.png")]


def test_a_resumed_run_goes_on_with_its_curve(tiny_run: TinyRun, tmp_path: Path) -> None:
    first, second, whole = LearningCurve(), LearningCurve(), LearningCurve()
    tiny_run([first, HiddenStateReset(), LastCheckpoint(tmp_path)], trainer={"max_epochs": 1, "enable_checkpointing": True})
    tiny_run([second, HiddenStateReset()], checkpoint=str(tmp_path / "last.ckpt"))
    tiny_run([whole, HiddenStateReset()])
    assert len(first.points["val/ppl"]) == 1
    assert second.points["val/ppl"] == whole.points["val/ppl"]
    assert second.points["train/ppl_epoch"] == whole.points["train/ppl_epoch"][1:]  # logged after the checkpoint was written


def test_a_curve_without_points_draws_nothing(tiny_run: TinyRun, tmp_path: Path) -> None:
    tiny_run([LearningCurve(metrics=["val/bleu"])])
    assert not list(tmp_path.rglob("*.png"))


# Throughput


def test_throughput_counts_the_tokens_of_training_steps(tiny_run: TinyRun, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.perf_counter", lambda: next(clock) / 4)  # every step seems to take a quarter of a second
    values = tiny_run([Throughput()]).values
    assert set(values["train/tokens_per_second"]) == {4 * 6 / 0.25}


# Report


def test_the_report_tells_before_and_after_and_where_things_lie(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "run"
    parts = [RunReport(), LearningCurve(), BestCheckpoint(folder / "checkpoints"), LastCheckpoint(folder / "checkpoints")]
    settings = {"num_sanity_val_steps": -1, "enable_checkpointing": True, "default_root_dir": folder}
    trainer = tiny_run(parts, trainer=settings).trainer
    first, *others = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"val/ppl: \d+\.\d before training, \d+\.\d after", first)
    assert first.endswith(f"{float(trainer.callback_metrics['val/ppl']):.1f} after")
    assert others == ["checkpoint: run/checkpoints/best.ckpt", "curve: run/learning_curve.png"]
    assert all(Path(line.split(": ")[1]).is_file() for line in others)


def test_the_report_does_not_take_a_few_windows_for_the_whole_text(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_run([RunReport()], trainer={"num_sanity_val_steps": 1})
    assert re.fullmatch(r"val/ppl: \d+\.\d after\n", capsys.readouterr().out)


# Predictions


def test_predictions_are_written_beside_what_was_true(
    make_data: Callable[..., LanguageData],
    make_trainer: Callable[..., Trainer],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = make_data(LINES, test=LINES[:3], lanes=2, steps=4)
    model = LanguageModel(data.vocab_size, 6, [6])
    make_trainer(callbacks=[WritePredictions()], max_epochs=1).predict(model, data)
    heading, *lines = (tmp_path / "predictions.tsv").read_text().splitlines()
    assert heading == "target\tpredicted"
    targets = sorted(line.split("\t")[0] for line in lines)
    tokens = [*" <eos> ".join(LINES[:3]).split(), "<eos>"]
    assert targets == sorted(tokens[1:])  # the first token of the text is predicted from nothing
    assert capsys.readouterr().out.endswith(f"predictions: {tmp_path / 'predictions.tsv'}\n")


def test_predictions_with_tabs_and_line_ends_stay_a_line_each(make_trainer: Callable[..., Trainer], tmp_path: Path) -> None:
    writer, trainer = WritePredictions(), make_trainer()
    writer.on_predict_start(trainer, LanguageModel(3))
    batches: list[list[tuple[str, ...]]] = [[("\t", "a\nb")], [("\\t", "\r")]]
    for rows in batches:
        writer.write_on_batch_end(trainer, LanguageModel(3), Prediction(("text", "label"), rows), None, None, 0, 0)
    assert (tmp_path / "predictions.tsv").read_text() == "text\tlabel\n\\t\ta\\nb\n\\\\t\t\\r\n"


def test_what_another_model_returns_is_left_to_others(
    make_trainer: Callable[..., Trainer], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Sizes(LightningModule):
        def predict_step(self, batch: torch.Tensor) -> int:
            return len(batch)

    make_trainer(callbacks=[WritePredictions()]).predict(Sizes(), DataLoader(range(3)))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    assert "predictions" not in capsys.readouterr().out


# Checkpoints


def test_the_best_checkpoint_has_the_lowest_perplexity_and_the_last_is_the_newest(tiny_run: TinyRun, tmp_path: Path) -> None:
    class Worsen(BestCheckpoint):
        """Sees a perplexity that falls once and then rises."""

        def _monitor_candidates(self, trainer: Trainer) -> dict[str, torch.Tensor]:
            candidates: dict[str, torch.Tensor] = super()._monitor_candidates(trainer)
            return candidates | {"val/ppl": torch.tensor([9.0, 5.0, 7.0][min(trainer.current_epoch, 2)])}

    tiny_run([Worsen(tmp_path), LastCheckpoint(tmp_path)], trainer={"max_epochs": 3, "enable_checkpointing": True})
    epochs = {name: torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["epoch"] for name in ("best", "last")}
    assert epochs == {"best": 1, "last": 2}


def test_without_validation_the_best_checkpoint_is_the_latest(tiny_run: TinyRun, tmp_path: Path) -> None:
    tiny_run([BestCheckpoint(tmp_path)], trainer={"limit_val_batches": 0, "enable_checkpointing": True})
    assert [path.name for path in tmp_path.glob("*.ckpt")] == ["best.ckpt"]
    assert torch.load(tmp_path / "best.ckpt", weights_only=True)["epoch"] == 1


def test_without_validation_several_are_the_latest_alone(tiny_run: TinyRun, tmp_path: Path) -> None:
    tiny_run([BestCheckpoint(tmp_path, keep=5)], trainer={"limit_val_batches": 0, "enable_checkpointing": True})
    assert [path.name.split("-")[:2] for path in tmp_path.glob("*.ckpt")] == [["best", "epoch=1"]]


def test_the_best_are_kept_and_averaged(
    tiny_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"max_epochs": 4, "enable_checkpointing": True}
    run = tiny_run([BestCheckpoint(tmp_path, keep=3), CheckpointAverage()], trainer=settings)
    assert "average of 3 checkpoints: average.ckpt" in capsys.readouterr().out
    kept = [torch.load(path, weights_only=True)["state_dict"] for path in tmp_path.glob("best-epoch=*.ckpt")]
    assert len(kept) == 3
    averaged = LanguageModel.load_from_checkpoint(tmp_path / "average.ckpt").state_dict()
    for name, value in averaged.items():
        torch.testing.assert_close(value, torch.stack([state[name] for state in kept]).mean(dim=0))
        assert not torch.equal(value, run.model.state_dict()[name])


def test_an_average_of_one_is_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"CheckpointAverage: no callback keeps several checkpoints; add callbacks\.BestCheckpoint"
    ):
        tiny_run([BestCheckpoint(tmp_path), CheckpointAverage()], trainer={"enable_checkpointing": True})
