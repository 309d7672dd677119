"""The cost of the heads' losses, in memory and time of forward and backward, beside cross-entropy over all logits.

    python -m experiments.benchmark loss

Linux only: the peak is read from /proc. Expect six minutes on 2 CPU cores, and a need of 4 GiB.
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
from rich.table import Table
from torch import Tensor, nn

from experiments.benchmark.console import table_console
from lm.adaptive_softmax import AdaptiveSoftmaxHead
from lm.heads import Head, LinearHead
from lm.linear_cross_entropy import chunk_rows
from lm.mixture_of_softmaxes import MixtureOfSoftmaxesHead

POSITIONS = 700  # 20 lanes of 35 steps
HIDDEN_SIZE = 200
VOCAB_SIZES = (10_000, 33_278, 267_735)  # Penn Treebank, WikiText-2, WikiText-103
EXPERTS = 3

Loss = Callable[[Any, Tensor, Tensor], Tensor]
"""Σ nll from a head, hidden states and targets."""


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


def head_loss(head: Head, hidden: Tensor, targets: Tensor) -> Tensor:
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


def linear_head(vocab_size: int) -> Head:
    """The head that the others are compared with."""
    return LinearHead(HIDDEN_SIZE, vocab_size)


def adaptive_head(vocab_size: int) -> Head:
    """Three clusters: WikiText-103's begin at ids 17,849 and 66,933, WikiText-2's at 2,218 and 8,319."""
    return AdaptiveSoftmaxHead(HIDDEN_SIZE, vocab_size, cutoffs=[vocab_size // 15, vocab_size // 4])


def mixture_head(vocab_size: int) -> Head:
    """A few experts: time grows with their number."""
    return MixtureOfSoftmaxesHead(HIDDEN_SIZE, vocab_size, experts=EXPERTS)


LOSSES: dict[str, tuple[Callable[[int], Head], Loss]] = {
    "cross_entropy": (linear_head, plain_loss),
    "LinearHead": (linear_head, head_loss),
    "AdaptiveSoftmaxHead": (adaptive_head, head_loss),
    f"MixtureOfSoftmaxesHead, {EXPERTS} experts": (mixture_head, head_loss),
}
if hasattr(nn.functional, "linear_cross_entropy"):
    LOSSES["linear_cross_entropy"] = (linear_head, torch_chunked_loss)


def loss() -> None:
    """Time and memory of the heads' losses at three vocabularies, beside cross-entropy over all logits. Linux only."""
    table_console().print(loss_table(measure_losses()))


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
    heads = {make: make(vocab_size) for make, _ in LOSSES.values()}
    hidden, targets = problem(vocab_size)
    seconds: dict[str, list[float]] = {name: [] for name in LOSSES}
    for _ in range(1 + repetitions):
        for name, (make, loss) in LOSSES.items():
            start = time.perf_counter()
            torch.autograd.backward(loss(heads[make], hidden, targets))
            seconds[name].append(time.perf_counter() - start)
            heads[make].zero_grad()
            hidden.grad = None
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def peak_memory(name: str, vocab_size: int) -> float:
    """MiB that one forward and backward of a loss take at their peak; call it in a process that did nothing before."""
    make, loss = LOSSES[name]
    head, (hidden, targets) = make(vocab_size), problem(vocab_size)
    base = process_memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # lowers VmHWM to VmRSS; creating the parameters may have taken more
    torch.autograd.backward(loss(head, hidden, targets))
    return process_memory("VmHWM") - base


def problem(vocab_size: int) -> tuple[Tensor, Tensor]:
    """Random hidden states `(POSITIONS, HIDDEN_SIZE)` that need a gradient, and targets `(POSITIONS,)` with p ∝ 1/(1 + id).

    Words of a text are about as unequal (Zipf's law), which matters to an adaptive softmax and to nothing else.
    """
    frequency = 1 / torch.arange(1, vocab_size + 1)
    return torch.randn(POSITIONS, HIDDEN_SIZE, requires_grad=True), frequency.multinomial(POSITIONS, replacement=True)


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
