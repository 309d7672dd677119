"""The cost of a linear head's loss, in memory and time of forward and backward, beside cross-entropy over all logits.

    python -m experiments.benchmark loss

Linux only: the peak is read from /proc. Expect three minutes on 2 CPU cores, and a need of 3 GiB.
"""

import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from lm.heads import LinearHead, chunk_rows

POSITIONS = 700  # 20 lanes of 35 steps
HIDDEN_SIZE = 200
VOCAB_SIZES = (10_000, 33_278, 267_735)  # Penn Treebank, WikiText-2, WikiText-103

Loss = Callable[[LinearHead, Tensor, Tensor], Tensor]


class LossCost(NamedTuple):
    """What one forward and backward of a loss takes.

    Attributes:
        vocab_size: number of ids.
        loss: its name in `LOSSES`.
        memory: MiB at the peak, over what parameters and inputs take; the gradients are part of it.
        time: seconds, the median.
        speed: how many times as fast as plain cross-entropy.
    """

    vocab_size: int
    loss: str
    memory: float
    time: float
    speed: float


def plain_loss(head: LinearHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Σ nll, a scalar, from all logits at once."""
    return nn.functional.cross_entropy(nn.functional.linear(hidden, head.weight, head.bias), targets, reduction="sum")


def head_loss(head: LinearHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Σ nll, a scalar, within the head's memory budget."""
    return head.loss(hidden, targets).total


def torch_chunked_loss(head: LinearHead, hidden: Tensor, targets: Tensor) -> Tensor:
    """Σ nll, a scalar, by torch >= 2.13 in the head's chunks: its own choice is a row at a time where the vocabulary is large."""
    functional: Any = nn.functional  # older stubs do not know it
    rows = chunk_rows(len(hidden), head.vocab_size, hidden.dtype, head.memory_budget_mib)
    options = nn.LinearCrossEntropyOptions(batch_chunk_size=rows)
    loss: Tensor = functional.linear_cross_entropy(
        hidden, head.weight, targets, linear_bias=head.bias, reduction="sum", options=options
    )
    return loss


LOSSES: dict[str, Loss] = {"cross_entropy": plain_loss, "LinearHead": head_loss}
if hasattr(nn.functional, "linear_cross_entropy"):
    LOSSES["linear_cross_entropy"] = torch_chunked_loss


def loss() -> None:
    """Time and memory of a linear head's loss at three vocabularies, beside cross-entropy over all logits. Linux only."""
    Console().print(loss_table(measure_losses()))


def measure_losses(vocab_sizes: Sequence[int] = VOCAB_SIZES, repetitions: int = 7) -> list[LossCost]:
    """Every loss at every vocabulary; memory in a fresh process each, time alternately in this one."""
    return [cost for vocab_size in vocab_sizes for cost in measure_vocabulary(vocab_size, repetitions)]


def measure_vocabulary(vocab_size: int, repetitions: int) -> list[LossCost]:
    """Every loss at one vocabulary."""
    memory = {name: in_fresh_process(peak_memory, name, vocab_size) for name in LOSSES}
    times = median_times(vocab_size, repetitions)
    return [LossCost(vocab_size, name, memory[name], times[name], times["cross_entropy"] / times[name]) for name in LOSSES]


def median_times(vocab_size: int, repetitions: int) -> dict[str, float]:
    """Seconds of each loss; they take turns, so that a noisy machine treats them alike, and the first turn is not counted."""
    head, hidden, targets = problem(vocab_size)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(1 + repetitions):
        for name, loss in LOSSES.items():
            start = time.perf_counter()
            torch.autograd.backward(loss(head, hidden, targets))
            seconds[name].append(time.perf_counter() - start)
            head.zero_grad()
            hidden.grad = None
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def peak_memory(name: str, vocab_size: int) -> float:
    """MiB that one forward and backward of a loss take at their peak; call it in a process that did nothing before."""
    head, hidden, targets = problem(vocab_size)
    base = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # lowers VmHWM to VmRSS; creating the parameters may have taken more
    torch.autograd.backward(LOSSES[name](head, hidden, targets))
    return process_memory("VmHWM") - base


def problem(vocab_size: int) -> tuple[LinearHead, Tensor, Tensor]:
    """A head, random hidden states `(POSITIONS, HIDDEN_SIZE)` that need a gradient, and random targets `(POSITIONS,)`."""
    hidden = torch.randn(POSITIONS, HIDDEN_SIZE, requires_grad=True)
    return LinearHead(HIDDEN_SIZE, vocab_size), hidden, torch.randint(vocab_size, (POSITIONS,))


def process_memory(field: str) -> float:
    """MiB of this process: VmRSS is what it holds now, VmHWM the most it has held."""
    match = re.search(rf"^{field}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"/proc/self/status has no {field}: the memory of a loss can be measured on Linux only")
    return int(match[1]) / 1024


def in_fresh_process(function: Callable[[str, int], float], name: str, vocab_size: int) -> float:
    """The result of a call in a process that has allocated nothing before."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, name, vocab_size).result()


def loss_table(costs: Sequence[LossCost]) -> Table:
    """Costs as a table for the terminal."""
    table = Table("vocabulary", "loss", "MiB over base", "ms", "speed", title=f"{POSITIONS} positions x {HIDDEN_SIZE} hidden")
    for cost in costs:
        table.add_row(f"{cost.vocab_size:,}", cost.loss, f"{cost.memory:,.0f}", f"{cost.time * 1e3:,.0f}", f"{cost.speed:.2f}")
    return table
