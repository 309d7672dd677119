"""Layers that begin to learn one after the other."""

from lightning import Callback, LightningModule, Trainer
from torch.nn import Parameter
from torch.nn.parallel import DistributedDataParallel

from lm.base import SequenceModule


class GradualUnfreezing(Callback):
    """Trains the last layer group first, the head, and one group more at a time, down to the embedding.

    That is how a model that was trained before forgets less (Howard & Ruder 2018, §3.3).
    Frozen weights have no gradient, so that no optimizer touches them, by weight decay or momentum either, and the backward pass
    ends where they begin. A part that was frozen before training, as by StartFrom, stays so.

    DDP has to know all weights when it begins and would wait for gradients that do not come: `ddp_find_unused_parameters_true`.

    Args:
        every_n_epochs: epochs from one group to the next.

    Raises:
        ValueError: if the interval is not positive, or DDP would wait.
        TypeError: if the module has no layer groups.
    """

    def __init__(self, every_n_epochs: int = 1) -> None:
        if every_n_epochs < 1:
            raise ValueError(f"GradualUnfreezing: every_n_epochs counts from 1, got {every_n_epochs}")
        self.every_n_epochs = every_n_epochs
        self.groups: list[list[Parameter]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse what cannot be frozen."""
        if not isinstance(pl_module, SequenceModule):
            raise TypeError(
                f"GradualUnfreezing needs a SequenceModule, which has layer groups; {type(pl_module).__name__} is none"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse to let DDP wait."""
        if isinstance(trainer.model, DistributedDataParallel) and not trainer.model.find_unused_parameters:
            raise ValueError(
                "GradualUnfreezing: DDP waits for the gradients of all weights, and frozen ones have none:"
                " set trainer.strategy to ddp_find_unused_parameters_true"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Freeze; not before, for DDP has to see weights that will learn, and in a resumed epoch this is the only time."""
        assert isinstance(pl_module, SequenceModule)
        trained = [[parameter for parameter in group if parameter.requires_grad] for group in pl_module.layer_groups()]
        self.groups = [group for group in trained if group]
        self.freeze_below(trainer.current_epoch)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the next group learn, if it is time."""
        self.freeze_below(trainer.current_epoch)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no weight frozen that was not before."""
        for group in self.groups:
            for parameter in group:
                parameter.requires_grad_(True)

    def freeze_below(self, epoch: int) -> None:
        """Freeze all groups but those from the last down that learn in an epoch, counted from 0."""
        learning = 1 + epoch // self.every_n_epochs
        for above, group in enumerate(reversed(self.groups)):
            for parameter in group:
                parameter.requires_grad_(above < learning)
