"""Layers that begin to learn one after the other."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from saving import SaveAt
from tiny_runs import LINES, Run, TinyRun, same
from torch import Tensor
from two_ranks import bare_trainer, on_two_ranks

from callbacks import GradientClipping, GradualUnfreezing, HiddenStateReset, WeightTying
from datamodules import LanguageData
from datamodules.sources import Files
from lm import LanguageModel

DECAYING = {"layer_sizes": [6, 6], "optimizer": partial(torch.optim.SGD, lr=1.0, momentum=0.9, weight_decay=0.1)}


class Moved(Callback):
    """Notes, for every epoch and group, whether all of its weights moved, and how many there were gradients of."""

    def __init__(self) -> None:
        self.moved: list[list[bool]] = []
        self.gradients: list[list[bool]] = []
        self.before: list[list[Tensor]] = []

    def on_train_epoch_start(self, _: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LanguageModel)
        self.before = [[parameter.detach().clone() for parameter in group] for group in pl_module.layer_groups()]

    def on_before_optimizer_step(self, _: Trainer, pl_module: LightningModule, __: Any) -> None:
        assert isinstance(pl_module, LanguageModel)
        self.gradients.append([all(parameter.grad is not None for parameter in group) for group in pl_module.layer_groups()])

    def on_train_epoch_end(self, _: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, LanguageModel)
        groups = zip(self.before, pl_module.layer_groups(), strict=True)
        self.moved.append([not any(map(torch.equal, before, after)) for before, after in groups])


def test_one_group_more_learns_every_epoch_from_the_head_down(tiny_run: TinyRun) -> None:
    seen = Moved()
    run = tiny_run([GradualUnfreezing(), GradientClipping(norm=0.5), seen], DECAYING, {"max_epochs": 5})
    steps = [[False, False, False, True], [False, False, True, True], [False, True, True, True], [True] * 4, [True] * 4]
    assert seen.moved == steps
    each = len(seen.gradients) // 5
    assert seen.gradients == [step for step in steps for _ in range(each)]
    assert all(parameter.requires_grad for parameter in run.model.parameters())


def test_an_interval_and_a_tied_weight(tiny_run: TinyRun) -> None:
    seen = Moved()
    tiny_run([WeightTying(), GradualUnfreezing(2), seen], {"layer_sizes": [6]}, {"max_epochs": 4})
    assert seen.moved == [[False, True]] * 2 + [[True, True]] * 2


def test_frozen_weights_have_no_momentum_when_they_begin_to_learn(tiny_run: TinyRun) -> None:
    optimizer = tiny_run([GradualUnfreezing()], DECAYING, {"max_epochs": 1}).trainer.optimizers[0]
    learned = [bool(optimizer.state.get(parameter)) for group in optimizer.param_groups for parameter in group["params"]]
    assert sum(learned) == 2  # weight and bias of the head
    assert len(learned) == 11


@pytest.mark.parametrize("part", [0.5, 1.0, 1.5, 2.5])
def test_a_run_resumed_in_any_epoch_is_the_run_that_was_not_stopped(tiny_run: TinyRun, tmp_path: Path, part: float) -> None:
    def run(saved: list[Callback], checkpoint: str | None = None) -> Run:
        return tiny_run([GradualUnfreezing(), *saved], DECAYING | {"carry": False}, {"max_epochs": 3}, checkpoint)

    steps = tiny_run(trainer={"max_epochs": 1}).trainer.global_step
    whole = run([SaveAt(round(part * steps), tmp_path / "saved.ckpt")])
    assert same(run([], str(tmp_path / "saved.ckpt")), whole)


def test_what_was_frozen_before_stays_so(tiny_run: TinyRun) -> None:
    class Freeze(Callback):
        def on_fit_start(self, _: Trainer, pl_module: LightningModule) -> None:
            assert isinstance(pl_module, LanguageModel)
            pl_module.network.embedding.requires_grad_(False)

    seen = Moved()
    run = tiny_run([Freeze(), GradualUnfreezing(), seen], {"layer_sizes": [6]}, {"max_epochs": 4})
    assert [moved[0] for moved in seen.moved] == [False] * 4
    assert not run.model.network.embedding.weight.requires_grad
    assert seen.moved[1][1:] == [True, True]


def test_other_modules_and_intervals_are_refused() -> None:
    with pytest.raises(ValueError, match="GradualUnfreezing: every_n_epochs counts from 1, got 0"):
        GradualUnfreezing(0)
    with pytest.raises(TypeError, match=r"GradualUnfreezing needs a SequenceModule, .* LightningModule is none"):
        GradualUnfreezing().setup(Trainer(logger=False, accelerator="cpu"), LightningModule(), "fit")


# Two ranks


def trained(ranks: int, folder: Path, **settings: Any) -> dict[str, Any]:
    """Weights after four epochs, in each of which one group more learns."""
    source = Files(train=str(folder / "train.txt"))
    data = LanguageData(source, lanes=4, steps=7, cache=str(folder / "cache"))
    torch.manual_seed(0)
    model = LanguageModel(data.vocab_size, 12, [12, 12], optimizer=partial(torch.optim.SGD, lr=0.5, momentum=0.9))
    parts = [GradientClipping(norm=0.5), HiddenStateReset(), GradualUnfreezing()]
    bare_trainer(ranks, max_epochs=4, callbacks=parts, limit_val_batches=0, **settings).fit(model, data)
    return model.state_dict()


def on_ranks(folder: Path) -> dict[str, Any]:
    return trained(2, folder, strategy="ddp_find_unused_parameters_true")


def refused(folder: Path) -> str:
    with pytest.raises(ValueError, match="DDP waits") as error:
        trained(2, folder)
    return str(error.value)


@pytest.mark.slow
def test_two_ranks_unfreeze_as_one(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES * 2) + "\n")
    weights = trained(1, tmp_path)
    for others in on_two_ranks(on_ranks, tmp_path, folder=tmp_path):
        torch.testing.assert_close(others, weights, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_a_strategy_that_would_wait_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("\n".join(LINES) + "\n")
    for message in on_two_ranks(refused, tmp_path, folder=tmp_path):
        assert message.endswith("set trainer.strategy to ddp_find_unused_parameters_true")
