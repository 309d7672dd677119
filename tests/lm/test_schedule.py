"""Learning rates over time and from layer to layer."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from saving import SaveAt
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, LRScheduler, OneCycleLR, StepLR

from callbacks import GradientClipping, WeightTying
from callbacks.resumption import ResumedOptimizer
from datamodules.language import LanguageData
from lm import LanguageModel
from lm.schedule import Schedule
from lm.slanted_triangular import SlantedTriangularLR

LINES = ["the cat sees the dog .", "the dog hears the bird .", "a bird likes a cat ."] * 8
SGD = partial(torch.optim.SGD, lr=0.8, momentum=0.5)
Fit = Callable[..., "Rates"]


class Rates(Callback):
    """Notes the rate and the momentum of every group at every step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []
        self.momenta: list[list[float]] = []
        self.trainer = Trainer(logger=False, accelerator="cpu")

    def on_before_optimizer_step(self, _: Trainer, __: LightningModule, optimizer: Optimizer) -> None:
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        self.momenta.append([float(group["momentum"]) for group in optimizer.param_groups])

    def weights(self) -> list[torch.Tensor]:
        return list(self.trainer.lightning_module.state_dict().values())


@pytest.fixture
def fit(make_data: Callable[..., LanguageData], make_trainer: Callable[..., Trainer]) -> Fit:
    """fit(schedule, callbacks, optimizer, checkpoint, **settings of Trainer): a tiny model of four layer groups, 2 epochs."""

    def train(
        schedule: Schedule | None,
        callbacks: Sequence[Callback] = (),
        optimizer: Any = SGD,
        checkpoint: str | None = None,
        **settings: Any,
    ) -> Rates:
        torch.manual_seed(0)
        data = make_data(LINES, lanes=4, steps=6)
        model = LanguageModel(data.vocab_size, 6, [6, 6], optimizer=optimizer, schedule=schedule)
        rates = Rates()
        rates.trainer = make_trainer(callbacks=[*callbacks, rates], **{"max_epochs": 2} | settings)
        rates.trainer.fit(model, data, ckpt_path=checkpoint)
        return rates

    return train


def of_torch(scheduler: Callable[[Optimizer], LRScheduler], lr: float, steps: int) -> tuple[list[float], list[float]]:
    """The rates and the momenta that torch itself gives one group."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.5)
    made = scheduler(optimizer)
    rates, momenta = [], []
    for _ in range(steps):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        momenta.append(float(optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        made.step()
    return rates, momenta


def test_each_group_learns_so_much_faster_than_the_one_below(fit: Fit) -> None:
    found = fit(Schedule(layer_factor=2.0))
    assert set(map(tuple, found.rates)) == {(0.1, 0.2, 0.4, 0.8)}


def test_one_rate_for_all_is_one_group_and_no_schedule(fit: Fit) -> None:
    plain, factor = fit(None), fit(Schedule(layer_factor=1.0))
    assert plain.rates == factor.rates == [[0.8]] * len(plain.rates)
    assert all(map(torch.equal, plain.weights(), factor.weights()))


SCHEDULERS: dict[str, tuple[Callable[[Optimizer], LRScheduler], str | None]] = {
    "one cycle": (partial(OneCycleLR, max_lr=0.8), "total_steps"),
    "slanted triangle": (SlantedTriangularLR, "total_steps"),
    "cosine": (partial(CosineAnnealingLR), "T_max"),
    "steps": (partial(StepLR, step_size=2), None),
    "cycles": (partial(CyclicLR, base_lr=0.1, max_lr=0.8, step_size_up=3, base_momentum=0.4, max_momentum=0.6), None),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_group_has_its_share_of_the_rate_that_torch_gives(fit: Fit, name: str) -> None:
    scheduler, steps_as = SCHEDULERS[name]
    found = fit(Schedule(scheduler, total_steps_as=steps_as, layer_factor=2.6))
    steps = len(found.rates)
    rates, momenta = of_torch(partial(scheduler, **{steps_as: steps} if steps_as else {}), 0.8, steps)
    for index, share in enumerate((2.6**-3, 2.6**-2, 2.6**-1, 1)):
        assert [step[index] for step in found.rates] == pytest.approx([share * rate for rate in rates])
        assert [step[index] for step in found.momenta] == pytest.approx(momenta)
    if name in ("one cycle", "cycles"):
        assert max(momenta) - min(momenta) > 0.05  # momentum goes against the rate


def test_a_step_moves_each_group_by_its_own_rate(fit: Fit) -> None:
    once = {"max_steps": 1, "callbacks": ()}
    start = fit(None, optimizer=partial(torch.optim.SGD, lr=0.0, momentum=0.0), **once)
    plain = fit(None, optimizer=partial(torch.optim.SGD, lr=1.0, momentum=0.0), **once)
    shared = fit(Schedule(layer_factor=2.0), optimizer=partial(torch.optim.SGD, lr=1.0, momentum=0.0), **once)
    model = start.trainer.lightning_module
    assert isinstance(model, LanguageModel)
    names = {parameter: name for name, parameter in model.named_parameters()}
    index = {name: number for number, name in enumerate(model.state_dict())}
    for above, group in enumerate(reversed(model.layer_groups())):
        for parameter in group:
            before, full, part = (run.weights()[index[names[parameter]]] for run in (start, plain, shared))
            torch.testing.assert_close(part - before, (full - before) / 2**above, rtol=1e-3, atol=1e-7)


def test_a_tied_run_with_shares_resumes_as_if_it_had_not_stopped(fit: Fit, tmp_path: Path) -> None:
    def parts() -> list[Callback]:
        return [WeightTying(), GradientClipping(norm=0.2), ResumedOptimizer()]

    schedule = Schedule(partial(OneCycleLR, max_lr=0.8), total_steps_as="total_steps", layer_factor=2.6)
    whole = fit(schedule, parts(), max_steps=9)
    assert [len(rates) for rates in whole.rates] == [3] * 9  # a tied embedding is the head's
    saved = tmp_path / "saved.ckpt"
    same = fit(schedule, [*parts(), SaveAt(4, saved)], max_steps=9)
    resumed = fit(schedule, parts(), checkpoint=str(saved), max_steps=9)
    assert resumed.rates == same.rates[4:] == whole.rates[4:]
    assert all(map(torch.equal, resumed.weights(), whole.weights()))


def test_a_resumed_optimizer_gives_each_group_its_share_of_a_new_rate(fit: Fit, tmp_path: Path) -> None:
    schedule = Schedule(layer_factor=2.0)
    fit(schedule, max_epochs=1).trainer.save_checkpoint(tmp_path / "half.ckpt")
    slower = partial(torch.optim.SGD, lr=0.4, momentum=0.5)
    resumed = fit(schedule, [ResumedOptimizer()], optimizer=slower, checkpoint=str(tmp_path / "half.ckpt"))
    assert set(map(tuple, resumed.rates)) == {(0.05, 0.1, 0.2, 0.4)}


def test_a_scheduler_that_gives_all_groups_one_rate_is_refused(fit: Fit) -> None:
    def alike(optimizer: Optimizer) -> LRScheduler:
        return OneCycleLR(optimizer, 0.8, total_steps=100)

    with pytest.raises(ValueError, match=r"OneCycleLR gives layer groups rates that are no layer_factor of 2\.6 apart"):
        fit(Schedule(alike, layer_factor=2.6))
    assert len(fit(Schedule(alike)).rates[0]) == 1


def test_groups_of_ones_own_keep_their_rates(fit: Fit) -> None:
    def halves(parameters: Any) -> Optimizer:
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": 0.1}, {"params": others}], lr=0.2, momentum=0.0)

    found = fit(Schedule(partial(StepLR, step_size=100)), optimizer=halves)
    assert set(map(tuple, found.rates)) == {(0.1, 0.2)}


def test_a_factor_of_nothing_and_a_run_without_end_are_refused(fit: Fit) -> None:
    with pytest.raises(ValueError, match=r"layer_factor divides learning rates and has to be positive, got 0"):
        Schedule(layer_factor=0)
    with pytest.raises(ValueError, match=r"the run has no end: set trainer\.max_epochs or trainer\.max_steps"):
        fit(Schedule(SlantedTriangularLR, total_steps_as="total_steps"), max_epochs=-1)
