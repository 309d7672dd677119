"""A learning rate found by trying."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_runs import TinyRun
from torch.optim import Optimizer

from callbacks import GradientClipping, HiddenStateReset, WeightTying
from callbacks.learning_rate_finder import LearningRateFinder, rising_rates, smoothed, suggestion
from lm import LanguageModel
from lm.base import NonFiniteLossError
from lm.schedule import Schedule

ENDLESS = {"max_epochs": -1, "limit_val_batches": 0}
SGD = partial(torch.optim.SGD, lr=0.5)


class Steps(Callback):
    """Notes the rates of every step, and the loss before it."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.losses: list[float] = []

    def on_before_optimizer_step(self, _: Trainer, __: LightningModule, optimizer: Optimizer) -> None:
        self.rates.append([group["lr"] for group in optimizer.param_groups])

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def test_rates_rise_by_one_factor_and_the_loss_beside_each_is_that_before_its_step(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, finder = Steps(), LearningRateFinder(1e-3, 1e1, steps=41)
    run = tiny_run([HiddenStateReset(), seen, finder], {"optimizer": SGD}, ENDLESS)
    assert run.trainer.global_step == 41
    assert [rate for (rate,) in seen.rates] == pytest.approx([10 ** (step / 10 - 3) for step in range(41)])
    assert finder.losses == seen.losses
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("learning rate")]
    chosen = suggestion(finder.rates, finder.losses)
    assert told == [f"learning rate: {chosen:.2g}, a tenth of that with the lowest loss: {tmp_path / 'learning_rate.png'}"]
    assert 1e-3 < chosen < 1
    assert (tmp_path / "learning_rate.png").read_bytes().startswith(b"\x89PNG")


def test_other_callbacks_and_the_shares_of_layer_groups_are_as_in_training(tiny_run: TinyRun) -> None:
    seen, schedule = Steps(), Schedule(partial(torch.optim.lr_scheduler.StepLR, step_size=1), layer_factor=2.0)
    settings = {"layer_sizes": [6, 6], "optimizer": SGD, "schedule": schedule}
    run = tiny_run([WeightTying(), GradientClipping(norm=0.1), seen, LearningRateFinder(steps=20)], settings, ENDLESS)
    assert all(rates == pytest.approx([rates[-1] / 4, rates[-1] / 2, rates[-1]]) for rates in seen.rates)
    assert set(run.values["train/clipped"]) == {1.0}
    assert run.model.schedule is schedule  # as it was before


def test_a_step_of_two_batches_is_one_rate(tiny_run: TinyRun) -> None:
    seen, finder = Steps(), LearningRateFinder(steps=20)
    run = tiny_run([seen, finder], {"optimizer": SGD}, ENDLESS | {"accumulate_grad_batches": 2})
    assert run.trainer.global_step == len(finder.losses) == len(seen.rates) == 20


def test_it_ends_where_the_loss_has_doubled(tiny_run: TinyRun) -> None:
    finder = LearningRateFinder(1e-2, 1e6, steps=60)
    tiny_run([finder], {"optimizer": SGD}, ENDLESS)
    assert len(finder.losses) < 60
    assert finder.losses[-1] > 2 * min(finder.losses) >= 2 * min(finder.losses[:-1])


class Spoil(Callback):
    """Makes the loss of a step no number."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LanguageModel)
        pl_module.add_loss_terms({"spoiled": lambda _: torch.tensor(float("nan") if trainer.global_step == 25 else 0.0)})


def test_it_tells_what_it_found_before_a_loss_that_is_no_number(tiny_run: TinyRun, capsys: pytest.CaptureFixture[str]) -> None:
    finder = LearningRateFinder(1e-3, 1e1, steps=41)
    with pytest.raises(NonFiniteLossError):
        tiny_run([finder, Spoil()], {"optimizer": SGD}, ENDLESS)
    assert len(finder.losses) == 25
    assert f"learning rate: {suggestion(finder.rates[:25], finder.losses):.2g}" in capsys.readouterr().out


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_mean() -> None:
    rates = [10.0**power for power in range(-20, 20)]
    losses = [5.0] * 10 + [4.0] * 10 + [3.0] * 5 + [6.0] * 15
    losses[5] = 0.0  # one lucky batch
    assert smoothed(losses)[[0, 5, 22, 39]].tolist() == [5.0, 4.0, 3.0, 6.0]
    assert smoothed(losses)[20] == (4 * 2 + 3 * 3) / 5
    assert suggestion(rates, losses) == pytest.approx(rates[22] / 10)
    with pytest.raises(ValueError, match=r"the loss does not fall from a rate of 1e-20 on: begin with a lower one"):
        suggestion(rates, [float(n) for n in range(40)])


def test_rising_rates_are_those_of_the_fastest_group() -> None:
    slow, fast = ({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (0.1, 0.2))
    optimizer = torch.optim.SGD([slow, fast])
    schedule = rising_rates(optimizer, [1.0, 2.0])
    found = []
    for _ in range(3):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    assert found == [[0.5, 1.0], [1.0, 2.0], [1.0, 2.0]]


@pytest.mark.parametrize("wrong", [{"lowest": 0.0}, {"lowest": 2.0, "highest": 1.0}, {"steps": 19}])
def test_rates_that_do_not_rise_and_other_modules_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"LearningRateFinder: rates rise from lowest to highest in 20 steps or more, got"):
        LearningRateFinder(**wrong)
    with pytest.raises(TypeError, match=r"needs a SequenceModule, .* LightningModule has none"):
        LearningRateFinder().setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")
