"""Where a carried state is forgotten."""

from lightning import Callback, LightningModule, Trainer

from lm.base import SequenceModule


class HiddenStateReset(Callback):
    """Start every epoch of training from zeros: its first window does not continue the last one of the epoch before.

    Lightning skips the hook where an epoch is resumed in its middle, and there the restored state is the right one.
    """

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget."""
        if not isinstance(pl_module, SequenceModule):
            raise TypeError(f"HiddenStateReset needs a SequenceModule, which carries a state; {type(pl_module).__name__} is none")
        pl_module.reset_state("train")
