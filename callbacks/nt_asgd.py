"""Weights averaged over steps, from the time when validation says that steps alone lead no further."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lm.precision import wide

RAW = "raw_weights"
"""Where a checkpoint, whose `state_dict` holds the average, has the weights that training goes on from."""


class NTASGD(Callback):
    """Non-monotonically triggered averaging of the weights of SGD, or of any optimizer (Merity et al. 2017, algorithm 1).

    When a validation loss is worse than the best of those before the last `patience` ones, averaging begins, as in the authors'
    program. The optimizer goes on as it was. The average is that of `torch.optim.ASGD(t0=0, lambd=0)`: the mean of the weights
    after each step from then on, without those after the first step as soon as there is a second.

    From then on validation and checkpoints use the average, and so does all that comes between a validation and the next
    batch; training goes on from the raw weights, and at its end the module holds the average. A checkpoint has both, and a
    resumed run goes on from the raw ones.

    Args:
        patience: how many of the latest validations a loss is not compared with, n of the paper.
        monitor: the logged metric that is the loss; the lowest is the best.
        finetune: average from the first step, and end training where averaging would begin: the second run of Merity et al.
            2017, §5, which starts from the weights of the first.

    Raises:
        ValueError: if the patience is not positive; in `setup`, if there is no validation, if the strategy divides the weights
            among processes, or a checkpoint callback saves weights alone, which would be the raw ones; at the first validation,
            if it logs no such metric.
    """

    def __init__(self, patience: int = 5, monitor: str = "val/loss", finetune: bool = False) -> None:
        if patience < 1:
            raise ValueError(f"NTASGD: patience counts validations from 1, got {patience}")
        self.patience = patience
        self.monitor = monitor
        self.finetune = finetune
        self.hook: RemovableHandle | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Forget an earlier fit."""
        self.losses: list[float] = []
        self.steps = 0
        self.average: dict[str, Tensor] | None = None
        self.raw: dict[str, Tensor] | None = None  # while the module holds the average

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be averaged, or would not be."""
        if stage != "fit":
            return
        self.begin_anew()
        data: Any = getattr(trainer, "datamodule", None)
        if not trainer.enable_validation or (data is not None and not data.val_dataloader()):
            raise ValueError(
                "NTASGD: averaging begins by the validation loss, and this run has no validation; give the data a validation"
                " split, and leave trainer.limit_val_batches"
            )
        if isinstance(trainer.strategy, FSDPStrategy | DeepSpeedStrategy | ModelParallelStrategy):
            raise ValueError(
                f"NTASGD: {type(trainer.strategy).__name__} divides weights among processes, and here they are averaged whole;"
                " use ddp"
            )
        if any(isinstance(part, ModelCheckpoint) and part.save_weights_only for part in trainer.checkpoint_callbacks):
            raise ValueError(
                "NTASGD: a checkpoint of weights alone would have the raw ones and not the average; set save_weights_only false"
            )

    # Averaging

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Be there after every step of the optimizer."""
        if self.finetune:
            self.average = self.average or copy_of(pl_module)
            trainer.should_stop |= non_monotone(self.losses, self.patience)  # it had come to its end before it was resumed
        if self.average is not None:
            devices = {name: parameter.device for name, parameter in pl_module.named_parameters()}
            self.average = {name: value.to(devices[name]) for name, value in self.average.items()}  # a restored one
        self.hook = trainer.optimizers[0].register_step_post_hook(lambda *_: self.update(pl_module))

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Take the weights after a step into the average, if it has begun."""
        if self.average is None:
            return
        self.steps += 1
        for name, parameter in module.named_parameters():
            average = self.average[name]
            average.lerp_(parameter.to(average.dtype), 1 / max(1, self.steps - 1))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at the loss, before checkpoints are written.

        Raises:
            ValueError: if there is none.
        """
        if trainer.state.fn != TrainerFn.FITTING:
            return
        if self.monitor not in trainer.callback_metrics:
            logged = ", ".join(sorted(trainer.callback_metrics))
            raise ValueError(f"NTASGD: no {self.monitor} is logged by validation; set monitor to one of {logged}")
        if trainer.sanity_checking:
            return
        self.losses.append(trainer.strategy.broadcast(float(trainer.callback_metrics[self.monitor])))
        if not non_monotone(self.losses, self.patience):
            return
        if self.finetune:
            trainer.should_stop = True
        elif self.average is None:
            self.average = copy_of(pl_module)

    # Which weights the module holds

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate the average."""
        if trainer.state.fn == TrainerFn.FITTING:
            self.hold_average(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Train the raw weights."""
        if self.raw is not None:
            write(pl_module, self.raw)
            self.raw = None

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the average."""
        self.hold_average(pl_module)
        if self.hook is not None:
            self.hook.remove()

    def hold_average(self, module: nn.Module) -> None:
        """Put the average in the place of the raw weights, if there is one and it is not there yet."""
        if self.average is not None and self.raw is None:
            self.raw = copy_of(module)
            write(module, self.average)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """All but the raw weights."""
        return {"losses": self.losses, "steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with them."""
        self.losses, self.steps, self.average = state_dict["losses"], state_dict["steps"], state_dict["average"]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let the average be the weights."""
        if self.average is not None:
            weights = checkpoint["state_dict"]
            checkpoint[RAW] = weights | by_every_name(pl_module, self.raw or {})
            checkpoint["state_dict"] = weights | by_every_name(pl_module, self.average)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """In training, go on from the raw weights; the module has already loaded the average."""
        if trainer.state.fn == TrainerFn.FITTING and RAW in checkpoint:
            pl_module.load_state_dict(checkpoint[RAW], strict=pl_module.strict_loading)


def non_monotone(losses: Sequence[float], patience: int) -> bool:
    """Whether the last loss is worse than the best of those before the `patience` ones before it."""
    early = losses[: -patience - 1]
    return bool(early) and losses[-1] > min(early)


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of each parameter in fp32 at least, by its name, the first one where it is tied."""
    return {name: value.detach().to(wide(value.dtype), copy=True) for name, value in module.named_parameters()}


@torch.no_grad()
def write(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Set each parameter."""
    for name, parameter in module.named_parameters():
        parameter.copy_(weights[name])


def by_every_name(module: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What a `state_dict` has for these weights: each in the type of its parameter, under all names of a tied one."""
    own = {parameter: weights[name].to(parameter.dtype) for name, parameter in module.named_parameters() if name in weights}
    named = module.named_parameters(remove_duplicate=False)
    return {name: own[parameter] for name, parameter in named if parameter in own}
