"""What more processes and other precisions bring: `python -m experiments.benchmark scaling`."""

import statistics
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning import Trainer, seed_everything
from rich.table import Table

from callbacks import GradientClipping, HiddenStateReset, WeightTying
from datamodules import LanguageData
from datamodules.builtin import PythonDocs
from datamodules.recipes import Words
from datamodules.sources import Files
from experiments.benchmark.apart import Apart
from experiments.benchmark.console import table_console
from experiments.benchmark.machine import machine, product_rate
from experiments.benchmark.watch import BARE, Watch
from experiments.cli import quiet
from experiments.processor import prepare_processor
from lm import LanguageModel
from lm.layers import LSTM

PRECISIONS = {"32-true": "cpu", "bf16-mixed": "cpu", "bf16-true": "cpu", "16-mixed": "cuda"}
"""Precisions, and the device that each needs at least."""
HIDDEN, LAYERS, LANES, STEPS = 200, 2, 20, 35
NETWORK_COUNTERS = Path("/proc/net/dev")


class Setting(NamedTuple):
    """A row of the table.

    Attributes:
        precision: of the Trainer.
        processes: that share the training.
        accumulated: batches of a step of the optimizer.
    """

    precision: Any
    processes: int
    accumulated: int = 1

    def __str__(self) -> str:
        return str(self.precision) + (f", {self.accumulated} batches a step" if self.accumulated > 1 else "")


class Measurement(NamedTuple):
    """What a row reached.

    Attributes:
        speeds: tokens a second in each epoch, of all processes together.
        sent: bytes that all processes sent each other for a step of the optimizer; None where there is no counter.
        parameters: that have a gradient.
    """

    speeds: list[float]
    sent: float | None
    parameters: int


class Training:
    """A tied LSTM of two layers of 200 units, in one of the processes that train it.

    Args:
        setting: of its row.
        text: file to train on, its last tenth held out; none for the English of Python's manual.
    """

    def __init__(self, setting: Setting, text: str | None) -> None:
        prepare_processor()
        quiet()
        seed_everything(1, verbose=False)
        self.name = str(setting)
        self.setting = setting
        source = PythonDocs() if text is None else Files(train=text, validation_fraction=0.1)
        self.data = LanguageData(source, Words(), lanes=LANES, steps=STEPS)
        self.model = LanguageModel(
            self.data.vocab_size,
            HIDDEN,
            [HIDDEN] * LAYERS,
            LSTM,
            initialisation="uniform",
            optimizer=partial(torch.optim.AdamW, lr=0.002, fused=True),
        )

    def train(self, epochs: int, batches: int) -> Measurement:
        """Train for a few batches in each of some epochs."""
        watch = Watch()
        trainer = Trainer(
            accelerator="auto" if torch.cuda.is_available() else "cpu",
            devices=self.setting.processes,
            strategy="ddp" if self.setting.processes > 1 else "auto",
            accumulate_grad_batches=self.setting.accumulated,
            precision=self.setting.precision,
            max_epochs=epochs,
            limit_train_batches=batches,
            callbacks=[WeightTying(), HiddenStateReset(), GradientClipping(norm=0.25), watch],
            **BARE,
        )
        before = bytes_sent()
        trainer.fit(self.model, self.data)
        after = bytes_sent()
        sent = None if before is None or after is None else (after - before) / trainer.global_step
        return Measurement(watch.speeds, sent, sum(part.numel() for part in self.model.parameters() if part.requires_grad))


def bytes_sent() -> int | None:
    """What the loopback interface has sent since the machine started; None where the system does not count it."""
    if not NETWORK_COUNTERS.exists():
        return None
    lines = [line.split(":") for line in NETWORK_COUNTERS.read_text().splitlines() if ":" in line]
    return next((int(counts.split()[8]) for name, counts in lines if name.strip() == "lo"), None)


def scaling(text: str | None = None, processes: int = 2, epochs: int = 3, batches: int = 40, rounds: int = 3) -> None:
    """Train a tied LSTM of two layers of 200 units in each precision, in one process and in several that share its threads.

    Rows take turns. Bytes are those of the loopback interface, where other programs count too; expected are those of a ring
    (docs/scaling.md).

    Args:
        text: file to train on; none for the English of Python's manual.
        processes: in the second row of each precision.
        epochs: of a turn.
        batches: of an epoch, 20 lanes of 35 tokens.
        rounds: turns of each row.
    """
    quiet()
    console = table_console()
    console.print(machine(product_rate()))
    able = [precision for precision, device in PRECISIONS.items() if device == "cpu" or torch.cuda.is_available()]
    settings = [Setting(precision, count) for precision in able for count in dict.fromkeys((1, processes))]
    if processes > 1:
        settings.append(Setting("32-true", processes, accumulated=2))
    found: dict[Setting, list[Measurement]] = {setting: [] for setting in settings}
    for _ in range(rounds):
        for setting in settings:
            training = Apart(partial(Training, setting, text), setting.processes)
            found[setting].append(training.call("train", epochs, batches))
            training.close()
    console.print(table(found))
    for precision in PRECISIONS.keys() - set(able):
        console.print(f"{precision}: not run, for it needs a GPU")


def table(found: dict[Setting, list[Measurement]]) -> Table:
    """Medians; how many times as fast as the first row is the median of each turn's own ratio."""
    shown = Table("training", "processes", "tokens/s", "x", "MB sent a step", "expected")
    medians = {setting: [statistics.median(turn.speeds) for turn in turns] for setting, turns in found.items()}
    first = next(iter(medians.values()))
    for setting, speeds in medians.items():
        times = statistics.median(mine / theirs for mine, theirs in zip(speeds, first, strict=True))
        row = [f"{statistics.median(speeds):,.0f}", f"{times:.2f}"]
        if setting.processes > 1:
            sent = [turn.sent for turn in found[setting] if turn.sent is not None]
            row += [f"{statistics.median(sent) / 1e6:.2f}" if sent else "not counted here"]
            row += [f"{expected(setting, found[setting][0].parameters) / 1e6:.2f}"]
        shown.add_row(str(setting), str(setting.processes), *row)
    return shown


def expected(setting: Setting, parameters: int) -> float:
    """Bytes that all ranks send in a ring's all-reduce of the gradients: each sends 2(N − 1)/N of them."""
    size = 2 if setting.precision == "bf16-true" else 4
    return 2 * (setting.processes - 1) * parameters * size
