"""Gradient clipping that can be seen: how large gradients were, and how often they were cut."""

from collections.abc import Iterable

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer


class GradientClipping(Callback):
    """Clip all gradients, as one vector or element by element, right before the optimizer's step.

    By norm: g ← min(1, θ/‖g‖)·g (Pascanu et al. 2013, algorithm 1). By value: every element into [−θ, θ].
    Logs `train/gradient_norm`, before clipping, and `train/clipped`, 1 for a step that was cut; its epoch mean is how often.

    Args:
        norm: θ for the norm of the whole gradient.
        value: θ for single elements; give this or `norm`.

    Raises:
        ValueError: if not exactly one limit is given, if it is not positive, or if the Trainer clips as well.
    """

    def __init__(self, norm: float | None = None, value: float | None = None) -> None:
        if (norm is None) == (value is None):
            raise ValueError(f"GradientClipping: give either norm or value, got {norm=}, {value=}")
        if (norm or value or 0) <= 0:
            raise ValueError(f"GradientClipping: the limit has to be positive, got {norm=}, {value=}")
        self.norm = norm
        self.value = value

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse to clip twice."""
        if trainer.gradient_clip_val is not None:
            raise ValueError(
                f"GradientClipping: trainer.gradient_clip_val={trainer.gradient_clip_val} clips as well; set only one of the two"
            )

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Clip, after a gradient scaler has unscaled."""
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        norm, clipped = self.clip(parameters)
        pl_module.log("train/gradient_norm", norm, batch_size=1)
        pl_module.log("train/clipped", clipped.float(), on_step=True, on_epoch=True, batch_size=1)

    def clip(self, parameters: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Clip the gradients of parameters in place; their norm before, and whether anything was cut."""
        parameters = [parameter for parameter in parameters if parameter.grad is not None]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = get_total_norm(gradients)
        if self.norm is not None:
            # Where asking costs no wait for a device, what is within the limit is not multiplied by one.
            if norm.device.type != "cpu" or not norm <= self.norm:
                clip_grads_with_norm_(parameters, self.norm, norm)
            return norm, norm > self.norm
        assert self.value is not None
        largest = torch.stack([gradient.abs().max() for gradient in gradients]).max()
        clip_grad_value_(parameters, self.value)
        return norm, largest > self.value
