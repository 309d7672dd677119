"""Translation models beside JoeyNMT's: `python -m experiments.benchmark mt`."""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import torch
from rich.table import Table
from sacrebleu import corpus_bleu

from datamodules.number_pairs import NumberPairs
from datamodules.pairs import PairSource
from datamodules.parallel import FileNames, ParallelFiles
from datamodules.sources import SPLITS, Split
from experiments.benchmark.apart import Apart
from experiments.benchmark.console import table_console
from experiments.benchmark.contestant import SETTING, Contestant, Parallel
from experiments.benchmark.joeynmt import JoeyNMT
from experiments.benchmark.machine import machine, product_rate
from experiments.benchmark.unroll import DECODERS, Unroll
from experiments.cli import quiet

REPETITIONS = 3
"""Times that each beam search is timed, in turn with the others."""


Make = Callable[[Parallel, int], Contestant]
"""Makes a contestant from the files and the seed."""


class Outcome(NamedTuple):
    """What a contestant reached with one seed; nan for what was not measured.

    Attributes:
        tokens: target tokens a second in training, the median of its epochs or those of one.
        greedy: BLEU on the validation split.
        beam: BLEU on the test split.
        sentences: of the test split a second in beam search, the median of its repetitions.
    """

    tokens: float
    greedy: float = math.nan
    beam: float = math.nan
    sentences: float = math.nan


def mt(
    train: str | None = None,
    validation: str | None = None,
    test: str | None = None,
    source: str = "en",
    target: str = "de",
    epochs: int = 6,
    seeds: int = 1,
    first_seed: int = 1,
    batches: int | None = None,
    processes: int = 1,
    joeynmt: bool = True,
) -> None:
    """Compare translation models of ours with JoeyNMT's: speed of training and of beam search, and BLEU after equal epochs.

    All have a bidirectional GRU of 256 as encoder and a GRU of 256 as decoder; batches of 64; and a process of their own, as
    their users would start it. BLEU is of the words as they are (tokenize: none). A row in bf16, which trains and searches in
    it, runs where products in bf16 are faster than in fp32.

    Args:
        train: what comes before the endings of two text files, such as data/train for data/train.en and data/train.de; none
            for numbers in words.
        validation: the same for the files of the validation split.
        test: the same for the test split.
        source: ending of the files of the source language.
        target: ending of the files of the target language.
        epochs: of each model.
        seeds: trainings of each model; models take turns.
        first_seed: of the first of them.
        batches: of each epoch, for a quick look at the speed of training, with no BLEU and no search, in which models take turns
            by epoch and a first epoch more is not counted; none for all.
        processes: that share the training and the searches of each of our models, and the threads of this process.
        joeynmt: have a row of JoeyNMT, where it is installed.
    """
    pairs = pair_source(train, validation, test, source, target)
    quiet()
    console = table_console()
    # Small ones, for a processor without instructions for bf16 can take a thousand times as long.
    gain = product_rate(torch.bfloat16, size=256) / product_rate(size=256)
    console.print(f"{machine(product_rate())}, in bf16 {gain:.3f} times as fast")
    with tempfile.TemporaryDirectory() as folder:
        files = written(pairs, Path(folder))
        rows: dict[str, list[Outcome]] = {}
        for seed in range(first_seed, first_seed + seeds):
            makers = contestants(joeynmt, half=gain > 1, processes=processes)
            rivals = [Rival(partial(make, files, seed), ranks) for make, ranks in makers]
            if batches:
                outcomes = in_turns(rivals, epochs, batches)
            else:
                trained = []
                for rival in rivals:
                    trained.append(measure(rival, files, epochs))
                    console.print(f"seed {seed}, {rival.name}: {summary(trained[-1])}")
                outcomes = searched(rivals, trained, files)
            for rival, found in zip(rivals, outcomes, strict=True):
                rows.setdefault(rival.name, []).extend(found)
                rival.close()
    console.print(table(rows))
    if gain <= 1:
        console.print("bf16: not run, for its products are no faster than those of fp32 here")


class Rival(Apart, Contestant):
    """A contestant in processes of its own."""

    def train(self, epochs: int, batches: int | None) -> list[float]:
        """See Contestant."""
        speeds: list[float] = self.call("train", epochs, batches)
        return speeds

    def translate(self, split: Split, width: int) -> list[str]:
        """See Contestant."""
        texts: list[str] = self.call("translate", split, width)
        return texts


def pair_source(train: str | None, validation: str | None, test: str | None, source: str, target: str) -> PairSource:
    """The source of the pairs.

    Raises:
        ValueError: if some of the files are given and others not.
    """
    prefixes = dict(zip(SPLITS, (train, validation, test), strict=True))
    if not any(prefixes.values()):
        return NumberPairs(target="fr")
    if missing := [split for split, prefix in prefixes.items() if not prefix]:
        raise ValueError(f"mt: there are no files for {missing}: give all of {list(SPLITS)}, or none of them")

    def side(ending: str) -> dict[Split, FileNames]:
        return {split: f"{prefix}.{ending}" for split, prefix in prefixes.items()}

    return ParallelFiles(side(source), side(target))


def written(source: PairSource, folder: Path) -> Parallel:
    """The pairs as text files, the same for all contestants."""
    files = Parallel(folder)
    for split, pairs in source.splits().items():
        files.path(split, "source").write_text("".join(f"{line}\n" for line in pairs.source), encoding="utf-8")
        files.path(split, "target").write_text("".join(f"{line}\n" for line in pairs.target), encoding="utf-8")
    return files


def contestants(joeynmt: bool, half: bool, processes: int) -> list[tuple[Make, int]]:
    """What makes each of them, and in how many processes; JoeyNMT has one without a GPU."""
    peers: list[tuple[Make, int]] = [(JoeyNMT, 1)] if joeynmt and find_spec("joeynmt") else []
    precisions = ["32-true", "bf16-mixed"] if half else ["32-true"]
    ours = [partial(Unroll, decoder, precision, processes) for decoder in DECODERS for precision in precisions]
    return peers + [(make, processes) for make in ours]


def in_turns(contestants: Sequence[Contestant], epochs: int, batches: int) -> list[list[Outcome]]:
    """The speeds of each, of one epoch after another: a machine that gets slower meanwhile is slower for all.

    In the first epoch kernels are compiled, which a training of many epochs does not notice; it is not counted.
    """
    speeds: list[list[Outcome]] = [[] for _ in contestants]
    for epoch in range(1 + epochs):
        for contestant, its in zip(contestants, speeds, strict=True):
            found = Outcome(*contestant.train(1, batches))
            if epoch:
                its.append(found)
    return speeds


def measure(contestant: Contestant, files: Parallel, epochs: int) -> Outcome:
    """Train it, and score what it translates."""
    tokens = statistics.median(contestant.train(epochs, None))
    return Outcome(tokens, bleu(contestant, files, "validation", 1), bleu(contestant, files, "test", SETTING.width))


def searched(contestants: Sequence[Contestant], trained: Sequence[Outcome], files: Parallel) -> list[list[Outcome]]:
    """The outcome of each with the speed of beam search, timed in turn."""
    seconds: list[list[float]] = [[] for _ in trained]
    for _ in range(REPETITIONS):
        for contestant, times in zip(contestants, seconds, strict=True):
            started = time.perf_counter()
            contestant.translate("test", SETTING.width)
            times.append(time.perf_counter() - started)
    count = len(files.lines("test", "target"))
    return [
        [outcome._replace(sentences=count / statistics.median(times))] for outcome, times in zip(trained, seconds, strict=True)
    ]


def bleu(contestant: Contestant, files: Parallel, split: Split, width: int) -> float:
    """BLEU of a split, its words as they are."""
    references = files.lines(split, "target")
    return float(corpus_bleu(contestant.translate(split, width), [references], tokenize="none", force=True).score)


def summary(outcome: Outcome) -> str:
    """What is known before the searches are timed."""
    quality = f"BLEU {outcome.greedy:.2f} greedily on validation and {outcome.beam:.2f} by beam search on test"
    return f"{outcome.tokens:,.0f} target tokens/s, {quality}"


def table(rows: dict[str, list[Outcome]]) -> Table:
    """Medians over seeds, or turns; how many times as fast as the first row is the median of their own ratios."""
    first = next(iter(rows.values()))
    beam = f"beam {SETTING.width}"
    shown = Table("model", "target tokens/s", "x", "BLEU validation, greedy", f"BLEU test, {beam}", f"sentences/s, {beam}", "x")
    for name, outcomes in rows.items():
        middle = Outcome(*map(statistics.median, zip(*outcomes, strict=True)))
        pairs = list(zip(outcomes, first, strict=True))
        training = f"{middle.tokens:,.0f}", f"{statistics.median(mine.tokens / theirs.tokens for mine, theirs in pairs):.2f}"
        quality = f"{middle.greedy:.2f}", f"{middle.beam:.2f}"
        times = statistics.median(mine.sentences / theirs.sentences for mine, theirs in pairs)
        search = f"{middle.sentences:,.0f}", f"{times:.2f}"
        shown.add_row(name, *(cell.replace("nan", "-") for cell in training + quality + search))
    return shown
