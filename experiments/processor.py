"""Settings of this process that make training on a CPU faster and change no result."""

import ctypes
import os
import sys

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of mallopt(3)."""

KERNELS_KEPT = 16384
"""Compiled kernels that oneDNN keeps; left alone it keeps 1,024."""


def prepare_processor() -> None:
    """Once, before the first tensor.

    Denormal numbers change no result, and a processor takes hundreds of cycles for each. And glibc gives large blocks back to
    the system when they are freed, so that the same logits, gradients and masks cost new pages at every step: keep them.
    Products in half precision are compiled for each shape, a millisecond for one that itself takes a tenth of that, and batches
    of sentences have thousands of shapes: keep those too.
    """
    torch.set_flush_denormal(True)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KERNELS_KEPT))
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):  # other libraries of C have none
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
