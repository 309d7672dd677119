"""The learning rate in proportion to the window: that of the step itself, of every optimizer, and of nothing else."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from tiny_runs import LINES
from torch import Tensor
from torch.optim import ASGD, SGD, Adam, AdamW, Optimizer

from callbacks import WindowRescale
from datamodules.language import LanguageData
from datamodules.streams import Window
from datamodules.variable_stream import VariableStream
from lm import LanguageModel
from lm.schedule import Schedule

STEPS, RATE, DECAY = 8, 0.5, 0.9
VARIABLE = partial(VariableStream, full=0.7, deviation=2.0, shortest=2)
MakeData = Callable[..., LanguageData]
MakeTrainer = Callable[..., Trainer]


class Record(Callback):
    """Keeps what the optimizer starts from, the gradients of each step, and the lengths of the windows behind them."""

    def __init__(self) -> None:
        self.first: list[Tensor] = []
        self.gradients: list[list[Tensor]] = []
        self.lengths: list[list[int]] = [[]]
        self.rates: list[float] = []

    def on_train_start(self, _: Trainer, pl_module: LightningModule) -> None:
        self.first = [parameter.detach().clone() for parameter in pl_module.parameters()]

    def on_train_batch_start(self, _: Trainer, __: LightningModule, batch: Window, ___: int) -> None:
        self.lengths[-1].append(batch.tokens.shape[1])

    def on_before_optimizer_step(self, _: Trainer, pl_module: LightningModule, __: Optimizer) -> None:
        self.gradients.append([parameter.grad.clone() for parameter in pl_module.parameters() if parameter.grad is not None])
        self.lengths.append([])

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def factors(self) -> list[float]:
        return [sum(group) / len(group) / STEPS for group in self.lengths[:-1]]


def train(
    make_data: MakeData, make_trainer: MakeTrainer, optimizer: Any, parts: list[Callback], schedule: Any = None, **settings: Any
) -> tuple[Trainer, list[Tensor]]:
    """Two epochs; the Trainer and the last weights."""
    torch.manual_seed(0)
    data = make_data(LINES, lanes=4, steps=STEPS, stream=VARIABLE)
    model = LanguageModel(data.vocab_size, 6, [6], optimizer=optimizer, schedule=schedule)
    trainer = make_trainer(callbacks=parts, max_epochs=2, limit_val_batches=0, **settings)
    trainer.fit(model, data)
    return trainer, [parameter.detach() for parameter in model.parameters()]


def replayed(seen: Record, make: Any, decay: float = 1.0) -> list[Tensor]:
    """The same gradients, in a loop that sets the rate of each step by hand."""
    weights = [torch.nn.Parameter(value.clone()) for value in seen.first]
    optimizer = make(weights)
    for step, (gradients, factor) in enumerate(zip(seen.gradients, seen.factors(), strict=True)):
        optimizer.param_groups[0]["lr"] = RATE * decay**step * factor
        for weight, gradient in zip(weights, gradients, strict=True):
            weight.grad = gradient
        optimizer.step()
    return [weight.detach() for weight in weights]


OPTIMIZERS: dict[str, Any] = {
    "sgd": partial(SGD, lr=RATE, momentum=0.9, weight_decay=0.01),
    "adam": partial(Adam, lr=RATE),
    "adamw": partial(AdamW, lr=RATE, weight_decay=0.1),
}


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_step_is_taken_with_the_rate_of_its_own_windows(
    make_data: MakeData, make_trainer: MakeTrainer, name: str, accumulate: int
) -> None:
    seen = Record()
    _, weights = train(make_data, make_trainer, OPTIMIZERS[name], [WindowRescale(), seen], accumulate_grad_batches=accumulate)
    assert len(set(seen.factors())) > 3
    assert len(seen.factors()) > 5
    torch.testing.assert_close(weights, replayed(seen, OPTIMIZERS[name]), rtol=1e-6, atol=1e-7)
    plain = Record()
    train(make_data, make_trainer, OPTIMIZERS[name], [plain], accumulate_grad_batches=accumulate)
    assert not torch.equal(plain.gradients[-1][0], seen.gradients[-1][0])


def test_the_rate_that_asgd_has_stored_is_scaled_and_its_average_is_of_the_weights_that_come_out(
    make_data: MakeData, make_trainer: MakeTrainer
) -> None:
    """By its equations: η_t = lr / (1 + λ·lr·(t−1))^α, times T/S, and the mean of the weights from the second step on."""
    decay, power = 0.01, 0.75
    seen = Record()
    make = partial(ASGD, lr=RATE, lambd=decay, alpha=power, t0=0)
    trainer, weights = train(make_data, make_trainer, make, [seen, WindowRescale()])
    expected = [value.clone() for value in seen.first]
    after: list[list[Tensor]] = []
    for step, (gradients, factor) in enumerate(zip(seen.gradients, seen.factors(), strict=True)):
        rate = RATE / (1 + decay * RATE * step) ** power * factor
        expected = [value - rate * (decay * value + gradient) for value, gradient in zip(expected, gradients, strict=True)]
        after.append(expected)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=1e-6)
    means = [torch.stack(values).mean(dim=0) for values in zip(*after[1:], strict=True)]
    states = [trainer.optimizers[0].state[parameter] for parameter in trainer.optimizers[0].param_groups[0]["params"]]
    torch.testing.assert_close([state["ax"] for state in states], means, rtol=1e-5, atol=1e-6)
    unscaled = RATE / (1 + decay * RATE * len(after)) ** power
    assert [float(state["eta"]) for state in states] == pytest.approx([unscaled] * len(states), rel=1e-6)


def test_a_schedule_goes_on_from_the_unscaled_rate(make_data: MakeData, make_trainer: MakeTrainer) -> None:
    seen = Record()
    schedule = Schedule(partial(torch.optim.lr_scheduler.ExponentialLR, gamma=DECAY))
    make = partial(SGD, lr=RATE)
    _, weights = train(make_data, make_trainer, make, [WindowRescale(), seen], schedule)
    assert seen.rates == pytest.approx([RATE * DECAY ** (step + 1) for step in range(len(seen.rates))])
    torch.testing.assert_close(weights, replayed(seen, make, DECAY), rtol=1e-6, atol=1e-7)


def test_a_checkpoint_holds_the_unscaled_rate_and_an_optimizer_is_left_alone_afterwards(
    make_data: MakeData, make_trainer: MakeTrainer, tmp_path: Path
) -> None:
    class Save(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            trainer.save_checkpoint(tmp_path / f"{trainer.global_step}.ckpt")

    trainer, _ = train(make_data, make_trainer, partial(SGD, lr=RATE), [WindowRescale(), Save()])
    for path in tmp_path.glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["optimizer_states"][0]["param_groups"][0]["lr"] == RATE
    (optimizer,) = trainer.optimizers
    assert not optimizer._optimizer_step_pre_hooks
    assert not optimizer._optimizer_step_post_hooks


def test_a_step_that_fails_leaves_the_unscaled_rate(make_data: MakeData, make_trainer: MakeTrainer) -> None:
    class Fail(Callback):
        rate = 0.0

        def on_before_optimizer_step(self, *_: Any) -> None:
            raise RuntimeError("no")

        def on_exception(self, trainer: Trainer, *_: Any) -> None:
            self.rate = trainer.optimizers[0].param_groups[0]["lr"]

    fail = Fail()
    with pytest.raises(RuntimeError, match="no"):
        train(make_data, make_trainer, partial(SGD, lr=RATE), [WindowRescale(), fail])
    assert fail.rate == RATE


def test_data_without_windows_is_refused(make_trainer: MakeTrainer) -> None:
    with pytest.raises(TypeError, match="WindowRescale needs a LanguageData, which cuts windows; NoneType does not"):
        make_trainer(callbacks=[WindowRescale()], max_epochs=1).fit(LanguageModel(4), VariableStream(np.arange(50), 1, 8))
