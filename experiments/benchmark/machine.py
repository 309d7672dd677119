"""What the machine can do: the yardstick of the benchmarks."""

import statistics
import time

import torch


def product_rate(dtype: torch.dtype = torch.float32, size: int = 2048, repetitions: int = 7) -> float:
    """Floating-point operations a second of a square matrix product, median."""
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return float(2 * size**3 / statistics.median(seconds))


def machine(rate: float) -> str:
    """One line that says what the numbers were measured on."""
    return f"torch {torch.__version__}, {torch.get_num_threads()} threads, fp32 products at {rate / 1e9:.0f} GFLOP/s"
