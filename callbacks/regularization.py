"""Activation regularization: penalties on what a recurrent network says, not on its weights."""

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lm.base import LossTerm, SequenceModule
from lm.network import RNNOutput
from lm.precision import wide


class RNNRegularization(Callback):
    """AR and TAR of the last layer (Merity et al. 2017, §4.6).

    AR, α·mean(h̃²), keeps activations small; it reads them after dropout, so that dropped units are not penalised.
    TAR, β·mean((h_{t+1} − h_t)²), keeps them slow; it reads them before dropout, whose zeros would look like jumps.
    Neither looks across windows. They are logged as `train/ar` and `train/tar`.

    Args:
        alpha: weight of AR; 0 turns it off.
        beta: weight of TAR; 0 turns it off.

    Raises:
        ValueError: if a weight is negative.
        TypeError: if the module's loss takes no terms.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 1.0) -> None:
        if alpha < 0 or beta < 0:
            raise ValueError(f"RNNRegularization: alpha and beta are penalties and cannot be negative, got {alpha=}, {beta=}")
        self.terms: dict[str, LossTerm] = {}
        if alpha:
            self.terms["ar"] = lambda output: alpha * activation(output)
        if beta:
            self.terms["tar"] = lambda output: beta * slowness(output)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Add the terms to the loss."""
        if not isinstance(pl_module, SequenceModule):
            raise TypeError(
                f"RNNRegularization needs a SequenceModule, whose loss takes terms; {type(pl_module).__name__} is none"
            )
        if stage == "fit":
            pl_module.add_loss_terms(self.terms)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take them away again."""
        if stage == "fit" and isinstance(pl_module, SequenceModule):
            pl_module.remove_loss_terms(self.terms)


def activation(output: RNNOutput) -> Tensor:
    """mean(h̃²) in fp32 at least, over what is no padding, a scalar."""
    return mean_square(output.hidden.to(wide(output.hidden.dtype)), output.lengths)


def slowness(output: RNNOutput) -> Tensor:
    """mean((h_{t+1} − h_t)²) in fp32 at least, over what is no padding, a scalar; 0 where no row has two steps."""
    lengths = None if output.lengths is None else (output.lengths - 1).clamp(min=0)
    return mean_square(output.raw.to(wide(output.raw.dtype)).diff(dim=1), lengths)


def mean_square(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Of the first `lengths` steps of each row of `(batch, time, features)`; 0 where there is none."""
    if lengths is None:
        return x.square().mean() if x.numel() else x.new_zeros(())
    read = torch.arange(x.shape[1], device=x.device) < lengths[:, None]
    return (x.square().mean(dim=-1) * read).sum() / read.sum().clamp(min=1)
