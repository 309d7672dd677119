"""Our GRU on a CPU beside torch's: `python -m experiments.benchmark gru`."""

import statistics
import time
from typing import NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn

from experiments.benchmark.console import table_console
from experiments.benchmark.machine import machine, product_rate
from experiments.processor import prepare_processor
from lm.bidirectional import Bidirectional
from lm.layers import GRU


class Size(NamedTuple):
    """A layer and what it reads.

    Attributes:
        name: where there is one like it.
        batch: sequences.
        steps: of each.
        features: of input and hidden state, in each direction.
        both: whether it reads in both directions.
    """

    name: str
    batch: int
    steps: int
    features: int
    both: bool = False


SIZES = (
    Size("small model", 20, 35, 200),
    Size("large model", 20, 70, 1150),
    Size("decoder", 64, 15, 256),
    Size("encoder", 64, 15, 256, both=True),
)


def gru(rounds: int = 20) -> None:
    """Time a forward and a backward pass of one layer, ours and torch's in turn, in fp32 and under bf16 autocast.

    Weights and input get gradients, the first two turns are not counted, and a ratio is the median of each turn's own. Rows in
    bf16 run where its products are faster than those of fp32. Expect two minutes on 2 CPU cores.

    Args:
        rounds: turns.
    """
    prepare_processor()
    console = table_console()
    shown = Table("of a", "batch, steps, features", "directions", "precision", "torch's ms", "ours", "x")
    half = product_rate(torch.bfloat16, size=256) > product_rate(size=256)
    console.print(machine(product_rate()))
    for size in SIZES:
        for dtype in (torch.float32, torch.bfloat16)[: 1 + half]:
            theirs, ours = measure(size, dtype, rounds)
            ratio = statistics.median(their / our for their, our in zip(theirs, ours, strict=True))
            times = [f"{statistics.median(seconds) * 1e3:.1f}" for seconds in (theirs, ours)]
            shape = f"{size.batch}, {size.steps}, {size.features}"
            precision = "32-true" if dtype == torch.float32 else "bf16-mixed"
            shown.add_row(size.name, shape, str(1 + size.both), precision, *times, f"{ratio:.2f}")
    console.print(shown)


def measure(size: Size, dtype: torch.dtype, rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of each turn, torch's and ours."""
    features = size.features
    torchs = nn.GRU(features, features, batch_first=True, bidirectional=size.both)
    ours = Bidirectional(features, features, GRU) if size.both else GRU(features, features)
    x = torch.randn(size.batch, size.steps, features, requires_grad=True)
    gradient = torch.randn(size.batch, size.steps, features * (1 + size.both)).to(dtype)
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(2 + rounds):
        for layer, seconds in zip((torchs, ours), found, strict=True):
            started = time.perf_counter()
            # As Lightning has it: a cast is made anew wherever it is needed.
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32, cache_enabled=False):
                said: Tensor = layer(x.to(dtype))[0]
            said.backward(gradient)  # type: ignore[no-untyped-call]
            if turn > 1:
                seconds.append(time.perf_counter() - started)
            layer.zero_grad()
            x.grad = None
    return found
