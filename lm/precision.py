"""What is computed in which floating-point type."""

import torch
from torch import Tensor


def product_dtype(weight: Tensor) -> torch.dtype:
    """What a matrix product with this weight computes in: autocast's type where autocast is on, which leaves fp64 alone."""
    device = weight.device.type
    if torch.is_autocast_enabled(device) and weight.dtype != torch.float64:
        return torch.get_autocast_dtype(device)
    return weight.dtype


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type of sums, exponentials and logarithms: at least fp32."""
    return torch.promote_types(dtype, torch.float32)
