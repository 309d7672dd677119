"""What each technique brings, one added to another: `python -m experiments.ladder experiments/ladders/FILE.yaml`."""

import csv
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from matplotlib.figure import Figure

from datamodules.cache import write_whole
from experiments.command import command
from experiments.errors import UsageError
from experiments.sweep import contents, flag

CHECKPOINT = "checkpoints/best.ckpt"
RESULT = "result.json"
ONE_LANE = "--data.evaluation_lanes=1"


@dataclass(frozen=True)
class Rung:
    """One technique.

    Attributes:
        name: of the technique.
        config: the experiment's YAML file.
        flags: of `experiments.run` with it and all before it.
        trained: the rung whose checkpoint it evaluates; itself where it is trained.
        base: the rung that it stands on; its own name for the first.
        kept: whether those after it stand on it.
        test: whether it is tested too.
    """

    name: str
    config: str
    flags: tuple[str, ...]
    trained: str
    base: str
    kept: bool
    test: bool


@dataclass(frozen=True)
class Ladder:
    """Rungs of one experiment, or of several that share a protocol, each run with several seeds.

    Attributes:
        metric: of the development split; the lowest value of a run is its result.
        seeds: of each rung.
        rungs: from the bottom up.
    """

    metric: str
    seeds: tuple[int, ...]
    rungs: tuple[Rung, ...]


def ladder(file: str, folder: str = "runs/ladder", processes: int = 1, *, flags: Sequence[str] = ()) -> None:
    """Train every rung of a ladder with every seed, and print what each brings. Other flags are those of `experiments.run`.

    What is finished is not run again, and what was interrupted goes on.

    Args:
        file: the ladder: `config`, `metric`, `seeds`, and `rungs` with a `name` and `flags` each, which later rungs keep;
            `keep: false` where they do not, as after one that does not help; `evaluate: true` where nothing is trained anew, and
            later rungs keep nothing either; `test: true` to test it too; a `config` of its own for another experiment, which
            keeps no flags from before, and from which later rungs go on.
        folder: where the runs write, and the table and picture of the ladder.
        processes: runs at a time, which share the threads.
        flags: of `experiments.run`.

    Raises:
        FileNotFoundError, ValueError: if the file is missing, or no ladder.
        RuntimeError: if a run fails.
    """
    if processes < 1:
        raise UsageError(f"processes: {processes} are too few; give 1 or more")
    chosen, place = read(Path(file)), Path(folder)
    for config in (rung.config for rung in chosen.rungs):
        if not Path(config).is_file():
            raise FileNotFoundError(f"ladder: there is no {config}, a config of {file}; start it where its path leads there")
    climb(chosen, place, processes, flags)
    lines = table(chosen, place)
    write_whole(place / "ladder.md", lines)
    draw(chosen, place)
    print(lines, end="")
    print(f"table: {place / 'ladder.md'}\npicture: {place / 'ladder.png'}")


def read(path: Path) -> Ladder:
    """The ladder in a YAML file.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    held = contents(path, "ladder", "experiments/ladders has some")
    if not isinstance(held, dict) or held.keys() != {"config", "metric", "seeds", "rungs"}:
        raise ValueError(f"ladder: {path} needs config, metric, seeds and rungs, and nothing else")
    for name in ("seeds", "rungs"):
        if not isinstance(held[name], list) or not held[name]:
            raise ValueError(f"ladder: {name} of {path} is {held[name]!r}, and no list of one or more; write [..., ...]")
    rungs: list[Rung] = []
    flags: tuple[str, ...] = ()
    config, base = held["config"], ""
    for rung in held["rungs"]:
        if not isinstance(rung, dict) or not {"name"} <= rung.keys() <= {"name", "config", "flags", "keep", "evaluate", "test"}:
            raise ValueError(f"ladder: {rung} in {path} is no rung; give it a name, and config, flags, keep, evaluate or test")
        if not isinstance(rung.get("flags", {}), dict):
            raise ValueError(
                f"ladder: flags of {rung['name']} in {path} are {rung['flags']!r}; write lines such as data.lanes: 4"
            )
        name, own = str(rung["name"]), tuple(flag(*setting) for setting in rung.get("flags", {}).items())
        evaluated, kept = bool(rung.get("evaluate")), bool(rung.get("keep", True)) and not rung.get("evaluate")
        if not base and not kept:
            raise ValueError(f"ladder: {name} in {path} is the first, which is trained, and which the others stand on")
        if "config" in rung:
            if not kept:
                raise ValueError(
                    f"ladder: {name} in {path} is of another config, from which later rungs go on; leave keep and evaluate out"
                )
            config, flags = rung["config"], ()
        trained = base if evaluated else name
        rungs.append(Rung(name, config, flags + own, trained, base or name, kept, bool(rung.get("test"))))
        if kept:
            flags, base = flags + own, name
    if len({rung.name for rung in rungs}) < len(rungs):
        raise ValueError(f"ladder: {path} needs rungs, each with a name of its own")
    return Ladder(held["metric"], tuple(held["seeds"]), tuple(rungs))


# Runs


def folder_of(place: Path, rung: str, seed: int) -> Path:
    """Where a rung's run with a seed writes."""
    return place / rung.replace(" ", "_").replace("/", "_") / str(seed)


def climb(chosen: Ladder, place: Path, processes: int, flags: Sequence[str]) -> None:
    """Run what is not finished: trainings first, and evaluations each after the training that it is of."""
    total, lock, done = len(chosen.rungs) * len(chosen.seeds), Lock(), 0

    def one(rung: Rung, seed: int, training: Future[None] | None) -> None:
        nonlocal done
        if training is not None:
            training.result()
        value = result(chosen, rung, seed, place, processes, flags)
        with lock:
            done += 1
            print(f"{done}/{total} {rung.name}, seed {seed}: {value:.4g}", flush=True)

    order = sorted(product(chosen.rungs, chosen.seeds), key=lambda run: run[0].name != run[0].trained)
    jobs: dict[tuple[str, int], Future[None]] = {}
    with ThreadPoolExecutor(processes) as pool:
        try:
            for rung, seed in order:
                jobs[rung.name, seed] = pool.submit(one, rung, seed, jobs.get((rung.trained, seed)))
            for job in jobs.values():
                job.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def result(chosen: Ladder, rung: Rung, seed: int, place: Path, processes: int, flags: Sequence[str]) -> float:
    """The metric of a rung's run with a seed, from its file if it is finished."""
    folder, source = folder_of(place, rung.name, seed), folder_of(place, rung.trained, seed)
    if not (folder / RESULT).exists():
        words = ["--config", rung.config, *rung.flags, *flags, "--seed_everything", str(seed)]
        threads = max(1, torch.get_num_threads() // processes)
        if rung.name == rung.trained:
            run(["fit", *words, "--run_folder", str(folder), "--ckpt_path", "last"], folder, threads)
        else:
            run(["validate", *words, "--run_folder", str(folder), "--ckpt_path", str(source / CHECKPOINT)], folder, threads)
        values = {"development": min(column(folder / "metrics.csv", chosen.metric))}
        if rung.test:
            tested = folder / "test"
            run(["test", *words, ONE_LANE, "--run_folder", str(tested), "--ckpt_path", str(source / CHECKPOINT)], tested, threads)
            values["test"] = column(tested / "metrics.csv", chosen.metric.replace("val/", "test/"))[-1]
        write_whole(folder / RESULT, json.dumps(values))
    return float(json.loads((folder / RESULT).read_text())["development"])


def run(words: Sequence[str], folder: Path, threads: int) -> None:
    """`experiments.run` in a process of its own, which writes what it says into `log.txt`.

    Raises:
        RuntimeError: if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with log.open("a", encoding="utf-8") as file:
        words = [sys.executable, "-m", "experiments.run", *words, "--trainer.enable_progress_bar=false"]
        status = subprocess.run(words, env=environment, stdout=file, stderr=file).returncode
    if status:
        last = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()][-1:]
        raise RuntimeError(f"ladder: a run ended with status {status} ({' '.join(last)}); see {log}, and start the ladder again")


def column(path: Path, name: str) -> list[float]:
    """The values of a metric in a run's table.

    Raises:
        RuntimeError: if there is none.
    """
    with path.open(newline="", encoding="utf-8") as file:
        values = [float(row[name]) for row in csv.DictReader(file) if row.get(name)]
    if not values:
        raise RuntimeError(f"ladder: {path} has no {name}; give the ladder a metric that the run logs")
    return values


# What is shown


def results(chosen: Ladder, place: Path) -> list[list[dict[str, Any]]]:
    """What each rung's run with each seed has come to."""
    return [
        [json.loads((folder_of(place, rung.name, seed) / RESULT).read_text()) for seed in chosen.seeds] for rung in chosen.rungs
    ]


def table(chosen: Ladder, place: Path) -> str:
    """The ladder in Markdown: every seed, the median, and what a rung adds to the one that it stands on."""
    seeds = ", ".join(map(str, chosen.seeds))
    lines = [
        f"| | {chosen.metric}, seeds {seeds} | median | of the rung that it stands on | test, one lane |",
        "|---|---|---|---|---|",
    ]
    medians: dict[str, float] = {}
    for rung, found in zip(chosen.rungs, results(chosen, place), strict=True):
        values = [one["development"] for one in found]
        median = medians[rung.name] = statistics.median(values)
        change = "" if rung.base == rung.name else f"{100 * (median / medians[rung.base] - 1):+.1f}%"
        tested = ", ".join(f"{one['test']:.1f}" for one in found if "test" in one)
        lines.append(f"| {rung.name} | {', '.join(f'{value:.1f}' for value in values)} | {median:.1f} | {change} | {tested} |")
    return "\n".join(lines) + "\n"


def draw(chosen: Ladder, place: Path) -> None:
    """A point for every run, and a line through the medians of the rungs that others stand on."""
    found = [[one["development"] for one in seeds] for seeds in results(chosen, place)]
    figure = Figure(figsize=(8, 1 + 0.4 * len(found)), layout="constrained")
    axes = figure.subplots()
    rows = range(len(found))
    for row, values in zip(rows, found, strict=True):
        axes.plot(values, [row] * len(values), "o", color="tab:blue", alpha=0.5)
    climbed = [row for row, rung in zip(rows, chosen.rungs, strict=True) if rung.kept]
    axes.plot([statistics.median(found[row]) for row in climbed], climbed, color="tab:blue")
    axes.set(xlabel=f"{chosen.metric}, every seed; the line joins medians of the rungs that are kept", yticks=list(rows))
    axes.set_yticklabels([rung.name for rung in chosen.rungs])
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    figure.savefig(place / "ladder.png", dpi=120)


if __name__ == "__main__":
    command(ladder, others="flags")
