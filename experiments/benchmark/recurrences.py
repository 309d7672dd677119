"""What a scan over time brings: `python -m experiments.benchmark recurrences`."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from matplotlib.figure import Figure
from rich.table import Column, Table
from torch import Tensor

from experiments.benchmark.console import table_console
from experiments.benchmark.machine import machine, product_rate
from lm.layers import LSTM, Cell, LayerFactory, SteppedLayer
from lm.minimal import MinGRU, MinLSTM
from lm.qrnn import QRNN
from lm.scanned import ScannedCell
from lm.sru import SRU

FUSED = "LSTM, fused"
LAYERS: dict[str, LayerFactory] = {
    FUSED: LSTM,
    "MinGRU": MinGRU,
    "MinLSTM": MinLSTM,
    "QRNN": QRNN,
    "QRNN, window 2": partial(QRNN, window=2),
    "SRU, no v": partial(SRU, peephole=False),
}
LENGTHS = (64, 128, 256, 512, 1024, 2048, 4096)

PrecisionName = Literal["32-true", "bf16-mixed"]

Way = Callable[[SteppedLayer, Tensor], Tensor]
"""A layer and its input `(batch, time, hidden)` -> what it says, `(batch, time, hidden)`."""


class Row(NamedTuple):
    """A layer, and the way in which it goes through time."""

    layer: str
    way: str


Seconds = dict[Row, list[float]]
"""Of a forward and a backward pass, in each turn."""


def at_once(layer: SteppedLayer, x: Tensor) -> Tensor:
    """All steps by the layer's own forward."""
    said: Tensor = layer(x)[0]
    return said


def looped(layer: SteppedLayer, x: Tensor) -> Tensor:
    """A loop over time behind one product for all steps."""
    assert isinstance(layer, Cell)
    return Cell.forward(layer, x)[0]


def stepped(layer: SteppedLayer, x: Tensor) -> Tensor:
    """One step after another, each with its own product, as in generation."""
    state, said = layer.first_state(x), []
    for now in x.unbind(dim=1):
        state = layer.step(layer.project(now), state)
        said.append(state[0])
    return torch.stack(said, dim=1)


WAYS: dict[str, Way] = {"at once": at_once, "looped": looped, "stepped": stepped}


def recurrences(
    picture: str = "recurrences.png",
    lengths: Sequence[int] = LENGTHS,
    batch: int = 8,
    hidden: int = 256,
    rounds: int = 5,
    precision: PrecisionName = "32-true",
) -> None:
    """Time layers that are scanned, the same layers stepped through time, and a fused LSTM of their size.

    A time is that of a forward and a backward pass, weights and inputs getting gradients. Rows take turns in one process, the
    first turn is not counted, and a ratio is the median of each turn's own. Expect ten minutes on 2 CPU cores.

    Args:
        picture: file for the curve over lengths.
        lengths: of the sequences.
        batch: sequences.
        hidden: features of input and output.
        rounds: turns of each row.
        precision: as a Trainer's.
    """
    console = table_console()
    console.print(machine(product_rate()))
    found = {length: measure(length, batch, hidden, rounds, precision) for length in lengths}
    for length, seconds in found.items():
        console.print(table(seconds, f"{length:,} steps, {batch} sequences, {hidden} features, {precision}"))
    draw(found, Path(picture))
    console.print(f"curve: {picture}")


def measure(length: int, batch: int, hidden: int, rounds: int, precision: PrecisionName) -> Seconds:
    """The times of every row at one length."""
    plugin = Precision() if precision == "32-true" else MixedPrecision(precision, "cpu")
    layers = {name: make(hidden, hidden) for name, make in LAYERS.items()}
    rows = [
        Row(name, way) for name, layer in layers.items() for way in WAYS if way == "at once" or isinstance(layer, ScannedCell)
    ]
    x = torch.randn(batch, length, hidden, requires_grad=True)
    gradient = torch.randn(batch, length, hidden)
    seconds: Seconds = {row: [] for row in rows}
    for turn in range(1 + rounds):
        for row in rows:
            layer = layers[row.layer]
            assert isinstance(layer, SteppedLayer)
            started = time.perf_counter()
            with plugin.forward_context():
                said = WAYS[row.way](layer, x)
            torch.autograd.backward(said, gradient.to(said.dtype))
            if turn:
                seconds[row].append(time.perf_counter() - started)
            layer.zero_grad()
            x.grad = None
    return seconds


def table(seconds: Seconds, title: str) -> Table:
    """Milliseconds of each way, and how many times as fast as the others, and as the fused LSTM, a layer is all at once."""
    whole = [Column(name, no_wrap=True) for name in ("layer", "ms", *list(WAYS)[1:])]
    shown = Table(*whole, "x looped", "x stepped", "x LSTM", title=title)
    for name in dict.fromkeys(row.layer for row in seconds):
        mine, *others = (seconds.get(Row(name, way)) for way in WAYS)
        if mine is not None:
            times = [f"{statistics.median(its) * 1e3:,.1f}" if its else "" for its in (mine, *others)]
            ratios = [f"{faster(mine, its):.2f}" if its else "" for its in (*others, seconds[Row(FUSED, "at once")])]
            shown.add_row(name, *times, *ratios)
    return shown


def faster(mine: Sequence[float], theirs: Sequence[float]) -> float:
    """How many times as fast, the median over turns."""
    return statistics.median(their / my for my, their in zip(mine, theirs, strict=True))


def draw(found: dict[int, Seconds], path: Path) -> None:
    """Time over length, a colour for each layer: solid all at once, dashed stepped."""
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    names = list(dict.fromkeys(row.layer for seconds in found.values() for row in seconds))
    for way, style in (("at once", "-"), ("stepped", "--")):
        for index, name in enumerate(names):
            row = Row(name, way)
            points = [(length, statistics.median(seconds[row]) * 1e3) for length, seconds in found.items() if row in seconds]
            if points:
                label = name if way == "at once" else None
                axes.plot(
                    *zip(*points, strict=True), style, marker=".", color="black" if name == FUSED else f"C{index}", label=label
                )
    axes.plot([], [], "--", color="grey", label="stepped")
    axes.set(xlabel="steps", ylabel="ms, forward and backward", xscale="log", yscale="log")
    axes.set_xticks(list(found), [str(length) for length in found], minor=False)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
