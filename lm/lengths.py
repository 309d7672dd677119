"""Rows of different lengths in one batch, padded behind."""

import torch
from torch import Tensor


def silenced(x: Tensor, lengths: Tensor | None) -> Tensor:
    """`(..., batch, time, features)` with zeros after each row's length, which is at least one; without lengths as it is."""
    if lengths is None:
        return x
    steps = torch.arange(x.shape[-2], device=x.device)
    return x * (steps < lengths.to(x.device).clamp(min=1)[:, None])[..., None]


def last(x: Tensor, lengths: Tensor | None) -> Tensor:
    """Of `(..., batch, time, features)` the last step, or the last within each row's length: `(..., batch, features)`."""
    if lengths is None:
        return x[..., -1, :]
    return x[..., torch.arange(x.shape[-3], device=x.device), lengths.to(x.device).clamp(min=1) - 1, :]


def reversed_in_time(x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """`(batch, time, features)` with the steps of each row in reverse order, those after its length where they were."""
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    source = lengths[:, None] - 1 - steps
    return x.gather(1, source.where(source >= 0, steps)[:, :, None].expand_as(x))
