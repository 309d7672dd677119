"""Averaging that begins by itself: when, of what, who sees it, and what a checkpoint holds."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from tiny_runs import LINES, Run, TinyRun, same
from torch import Tensor
from torch.optim import ASGD, SGD

from callbacks import NTASGD, BestCheckpoint, CheckpointAverage, LastCheckpoint, StartFrom, WeightTying
from callbacks.nt_asgd import non_monotone
from datamodules.language import LanguageData
from lm import LanguageModel

FAST = {"optimizer": partial(SGD, lr=20.0)}
"""So fast that the loss does not go down for long."""


class Record(Callback):
    """Keeps the weights after each step, and those that each validation and each epoch's end see."""

    def __init__(self) -> None:
        self.trained: list[list[Tensor]] = []
        self.validated: list[tuple[int, list[Tensor]]] = []
        self.ended: list[list[Tensor]] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, _: Trainer, pl_module: LightningModule, *__: Any) -> None:
        self.trained.append(weights(pl_module))

    def on_validation_epoch_start(self, _: Trainer, pl_module: LightningModule) -> None:
        self.validated.append((len(self.trained), weights(pl_module)))

    def on_validation_end(self, trainer: Trainer, _: LightningModule) -> None:
        self.losses.append(float(trainer.callback_metrics["val/loss"]))

    def on_train_epoch_end(self, _: Trainer, pl_module: LightningModule) -> None:
        self.ended.append(weights(pl_module))


def weights(module: LightningModule) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def equal(some: list[Tensor], others: list[Tensor]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def mean(steps: list[list[Tensor]]) -> list[Tensor]:
    """Of the weights after these steps, without the first if there are more."""
    return [torch.stack(values).double().mean(dim=0).float() for values in zip(*(steps[1:] or steps), strict=True)]


# The trigger


@pytest.mark.parametrize(
    ("losses", "patience", "begins"),
    [
        ([5, 4, 3, 2, 1], 1, None),
        ([5, 4, 4.5], 1, None),  # against 5 alone
        ([5, 4, 4.5, 4.2], 1, 3),  # against 5 and 4
        ([5, 4, 4.5, 4], 1, None),  # equal is not worse
        ([5, 4, 4.5, 4.6, 4.7, 4.8], 3, 5),  # 4.7 against 5 alone, 4.8 against 5 and 4
        ([5, 6, 6, 6, 6, 6], 5, None),
        ([5, 6, 6, 6, 6, 6, 6], 5, 6),
        ([5, float("nan"), float("nan"), float("nan")], 1, None),
    ],
)
def test_averaging_begins_where_the_loss_is_worse_than_the_best_before_the_last_few(
    losses: list[float], patience: int, begins: int | None
) -> None:
    first = next((number for number in range(len(losses)) if non_monotone(losses[: number + 1], patience)), None)
    assert first == begins


def averaged(tiny_run: TinyRun, *parts: Callback, **trainer: Any) -> tuple[NTASGD, Record, Run]:
    """A run of twelve epochs in which averaging begins."""
    average, seen = NTASGD(patience=1), Record()
    run = tiny_run([average, *parts, seen], model=FAST, trainer={"max_epochs": 12} | trainer)
    return average, seen, run


def begun(seen: Record, patience: int = 1) -> int:
    """The number of the validation after which averaging begins, by the rule written out."""
    for number, loss in enumerate(seen.losses):
        before = seen.losses[:number]
        if len(before) > patience and loss > min(before[:-patience]):
            return number
    raise AssertionError(f"averaging never begins: {seen.losses}")


# The average


def test_training_sees_the_raw_weights_and_all_else_the_average(tiny_run: TinyRun) -> None:
    average, seen, run = averaged(tiny_run)
    plain = Record()
    tiny_run([plain], model=FAST, trainer={"max_epochs": 12})
    assert all(equal(mine, theirs) for mine, theirs in zip(seen.trained, plain.trained, strict=True))
    first = begun(seen)
    assert 1 < first < len(seen.losses) - 2
    start = seen.validated[first][0]
    for number, (steps, validated) in enumerate(seen.validated):
        expected = seen.trained[steps - 1] if number <= first else mean(seen.trained[start:steps])
        torch.testing.assert_close(validated, expected, rtol=1e-5, atol=1e-6)
        assert number <= first or not equal(validated, seen.trained[steps - 1])
    assert all(equal(ended, validated) for ended, (_, validated) in zip(seen.ended, seen.validated, strict=True))
    assert equal(weights(run.model), seen.validated[-1][1])
    assert average.losses == seen.losses
    assert seen.losses[: first + 1] == plain.losses[: first + 1]
    assert seen.losses[first + 1 :] != plain.losses[first + 1 :]


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_the_average_is_that_of_asgd(tiny_run: TinyRun, steps: int) -> None:
    average, last = NTASGD(finetune=True), {"max_epochs": -1, "max_steps": steps}
    run = tiny_run([average], model={"optimizer": partial(SGD, lr=0.5)}, trainer=last)
    theirs = tiny_run(model={"optimizer": partial(ASGD, lr=0.5, t0=0, lambd=0)}, trainer=last)
    (optimizer,) = theirs.trainer.optimizers
    expected = [optimizer.state[parameter]["ax"] for parameter in theirs.model.parameters()]
    torch.testing.assert_close(run.weights(), expected, rtol=1e-5, atol=1e-6)
    assert average.raw is not None
    torch.testing.assert_close(list(average.raw.values()), theirs.weights(), rtol=1e-5, atol=1e-6)


def test_it_averages_once_a_step_of_accumulated_batches(tiny_run: TinyRun) -> None:
    average = NTASGD(finetune=True)
    run = tiny_run([average], trainer={"accumulate_grad_batches": 3})
    assert average.steps == run.trainer.global_step < run.trainer.fit_loop.total_batch_idx


def test_half_precision_weights_are_averaged_in_fp32(tiny_run: TinyRun) -> None:
    average, seen = NTASGD(finetune=True), Record()
    run = tiny_run([average, seen], trainer={"precision": "bf16-true"})
    assert run.weights()[0].dtype == torch.bfloat16
    expected = [torch.stack(values).float().mean(dim=0).bfloat16() for values in zip(*seen.trained[1:], strict=True)]
    torch.testing.assert_close(run.weights(), expected, rtol=0.01, atol=1e-5)


@pytest.mark.parametrize("first", [0, 1])
def test_weights_are_tied_wherever_the_callback_is_listed(tiny_run: TinyRun, tmp_path: Path, first: int) -> None:
    average, seen = NTASGD(finetune=True), Record()
    parts: list[Callback] = [WeightTying()]
    parts.insert(first, average)
    run = tiny_run([*parts, seen])
    torch.testing.assert_close(run.weights(), mean(seen.trained), rtol=1e-5, atol=1e-6)
    run.trainer.save_checkpoint(tmp_path / "tied.ckpt")
    saved = torch.load(tmp_path / "tied.ckpt", weights_only=True)
    for weights_of in (saved["state_dict"], saved["raw_weights"]):
        assert torch.equal(weights_of["head.weight"], weights_of["network.embedding.weight"])
    assert torch.equal(saved["state_dict"]["head.weight"], run.model.head.get_parameter("weight"))
    assert torch.equal(saved["raw_weights"]["head.weight"], seen.trained[-1][0])


# Checkpoints


class Save(Callback):
    """Writes a checkpoint after each step, as if it were asked to in the middle of everything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def saved_weights(path: Path) -> list[Tensor]:
    return weights(LanguageModel.load_from_checkpoint(path))


def test_a_checkpoint_holds_the_average_once_it_has_begun_and_the_raw_weights_too(tiny_run: TinyRun, tmp_path: Path) -> None:
    _, seen, _ = averaged(tiny_run, Save(tmp_path))
    start = seen.validated[begun(seen)][0]
    for step in (1, start, start + 1, start + 2, len(seen.trained)):
        path = tmp_path / f"{step}.ckpt"
        raw = seen.trained[step - 1]
        checkpoint = torch.load(path, weights_only=True)
        if step <= start:
            assert equal(saved_weights(path), raw)
            assert "raw_weights" not in checkpoint
        else:
            torch.testing.assert_close(saved_weights(path), mean(seen.trained[start:step]), rtol=1e-5, atol=1e-6)
            assert equal(list(checkpoint["raw_weights"].values()), raw)


def test_the_best_and_the_last_checkpoint_are_what_was_validated(tiny_run: TinyRun, tmp_path: Path) -> None:
    best, last = BestCheckpoint(tmp_path), LastCheckpoint(tmp_path)
    _, seen, run = averaged(tiny_run, best, last, enable_checkpointing=True)
    number = min(range(len(seen.losses)), key=seen.losses.__getitem__)
    assert number > begun(seen)  # it was worth it
    assert equal(saved_weights(tmp_path / "best.ckpt"), seen.validated[number][1])
    assert equal(saved_weights(tmp_path / "last.ckpt"), run.weights())
    best_model, loader = LanguageModel.load_from_checkpoint(tmp_path / "best.ckpt"), run.trainer.val_dataloaders
    (tested,) = run.trainer.validate(best_model, loader)
    assert tested["val/loss"] == pytest.approx(min(seen.losses), rel=1e-6)


def test_a_resumed_run_goes_on_from_the_raw_weights_before_at_and_after_the_trigger(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole_average, seen, whole = averaged(tiny_run, Save(tmp_path))
    start = seen.validated[begun(seen)][0]
    for step in (2, start - 1, start + 1, start + 2, len(seen.trained) - 1):
        average, again = NTASGD(patience=1), Record()
        run = tiny_run([average, again], model=FAST, trainer={"max_epochs": 12}, checkpoint=str(tmp_path / f"{step}.ckpt"))
        assert all(equal(*pair) for pair in zip(again.trained, seen.trained[step:], strict=True))
        assert same(run, whole), step
        assert (average.losses, average.steps) == (whole_average.losses, whole_average.steps)


def test_a_checkpoint_written_by_the_triggering_validation_is_resumed(tiny_run: TinyRun, tmp_path: Path) -> None:
    class SaveAtEnd(Callback):
        def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    _, seen, whole = averaged(tiny_run, SaveAtEnd())
    epoch = begun(seen)
    for number in (epoch - 1, epoch, epoch + 1):
        path = str(tmp_path / f"{number}.ckpt")
        resumed = tiny_run([NTASGD(patience=1)], model=FAST, trainer={"max_epochs": 12}, checkpoint=path)
        assert same(resumed, whole), number


class Die(Callback):
    """Ends a run in the middle of a validation, without a chance to write anything."""

    def __init__(self, validation: int) -> None:
        self.left = validation

    def on_validation_epoch_start(self, *_: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise ConnectionError("gone")


@pytest.mark.parametrize("often", [{}, {"val_check_interval": 2}, {"val_check_interval": 1}])
def test_no_loss_is_missed_by_a_run_that_dies_while_it_validates(tiny_run: TinyRun, tmp_path: Path, often: Any) -> None:
    settings = {"max_epochs": 7, "enable_checkpointing": True, **often}
    whole = NTASGD(patience=1)
    expected = tiny_run([whole], model=FAST, trainer=settings)
    start = next(number for number in range(len(whole.losses)) if non_monotone(whole.losses[: number + 1], 1))
    for validation in (start, start + 1):
        folder = tmp_path / f"{validation}"
        with pytest.raises(ConnectionError):
            tiny_run([NTASGD(patience=1), LastCheckpoint(folder, 1), Die(validation)], model=FAST, trainer=settings)
        average, path = NTASGD(patience=1), str(folder / "last.ckpt")
        resumed = tiny_run([average, LastCheckpoint(folder, 1)], model=FAST, trainer=settings, checkpoint=path)
        assert average.losses == whole.losses
        assert same(resumed, expected)


def test_an_average_of_checkpoints_leaves_the_raw_weights_out(tiny_run: TinyRun, tmp_path: Path) -> None:
    averaged(tiny_run, BestCheckpoint(tmp_path, keep=2), CheckpointAverage(), enable_checkpointing=True)
    assert "raw_weights" not in torch.load(tmp_path / "average.ckpt", weights_only=True)


# Fine-tuning


def test_a_second_run_averages_from_its_first_step_and_ends_by_the_trigger(tiny_run: TinyRun, tmp_path: Path) -> None:
    _, _, run = averaged(tiny_run, BestCheckpoint(tmp_path), enable_checkpointing=True)
    start = StartFrom(str(tmp_path / "best.ckpt"), {"network": "network", "head": "head"})
    average, seen = NTASGD(patience=1, finetune=True), Record()
    tuned = tiny_run([start, average, seen], model=FAST, trainer={"max_epochs": 100})
    assert begun(seen) == len(seen.losses) - 1
    assert tuned.trainer.current_epoch == len(seen.losses) < 100
    torch.testing.assert_close(seen.validated[0][1], mean(seen.trained[: seen.validated[0][0]]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(tuned.weights(), mean(seen.trained), rtol=1e-5, atol=1e-6)
    assert not same(tuned, run)
    tuned.trainer.save_checkpoint(tmp_path / "end.ckpt")
    again = Record()
    resumed = tiny_run(
        [NTASGD(patience=1, finetune=True), again], model=FAST, trainer={"max_epochs": 100}, checkpoint=str(tmp_path / "end.ckpt")
    )
    assert not again.trained
    assert same(resumed, tuned)


# What it refuses


def test_patience_is_a_count() -> None:
    with pytest.raises(ValueError, match="NTASGD: patience counts validations from 1, got 0"):
        NTASGD(patience=0)


def test_a_run_without_validation_is_refused_before_it_begins(
    tiny_run: TinyRun, make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer]
) -> None:
    with pytest.raises(ValueError, match="this run has no validation; give the data a validation split"):
        tiny_run([NTASGD()], trainer={"limit_val_batches": 0})
    data = make_data(LINES, lanes=4, steps=6)
    with pytest.raises(ValueError, match="this run has no validation"):
        make_trainer(callbacks=[NTASGD()], max_epochs=1).fit(LanguageModel(data.vocab_size), data)


def test_a_metric_that_is_not_logged_is_named_before_training(tiny_run: TinyRun) -> None:
    seen = Record()
    with pytest.raises(ValueError, match=r"NTASGD: no val/nll is logged by validation; set .* to one of .*val/loss, val/ppl"):
        tiny_run([NTASGD(monitor="val/nll"), seen], trainer={"num_sanity_val_steps": 1})
    assert not seen.trained


def test_checkpoints_of_weights_alone_are_refused(tiny_run: TinyRun, tmp_path: Path) -> None:
    alone = ModelCheckpoint(tmp_path, save_weights_only=True)
    with pytest.raises(ValueError, match="would have the raw ones and not the average; set save_weights_only false"):
        tiny_run([NTASGD(), alone], trainer={"enable_checkpointing": True})


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy])
def test_strategies_that_divide_weights_are_refused(kind: type) -> None:
    trainer: Any = SimpleNamespace(enable_validation=True, strategy=object.__new__(kind))  # it would want a GPU
    with pytest.raises(ValueError, match=f"NTASGD: {kind.__name__} divides weights among processes"):
        NTASGD().setup(trainer, LightningModule(), "fit")
