"""The ids of one split in a file, written part by part: an interruption costs the part it falls into and no other."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.cache import write_whole
from datamodules.sources import Texts

LETTERS_A_PART = 2**23


def write_tokens(path: Path, lines: Texts, encode: Callable[[list[str]], np.ndarray]) -> None:
    """Append the ids of the lines that are not in the file yet.

    A journal beside it says how many lines are, and how many bytes they take; what a process wrote after its last entry is
    written again.

    Args:
        path: the file, new or left by an interrupted process.
        lines: all lines of the split, the same ones at every attempt.
        encode: the ids of some lines, one array.
    """
    journal = path.with_name(f"{path.name}.journal")
    done, size = json.loads(journal.read_text(encoding="utf-8")) if journal.exists() else (0, 0)
    with path.open("ab") as file, progress(f"Tokenising {path.stem}", lines, done) as bar:
        file.truncate(size)
        for part in batches(islice(lines, done, None), LETTERS_A_PART):
            ids = encode(part)
            file.write(ids.data)
            file.flush()
            os.fsync(file.fileno())
            done, size = done + len(part), size + ids.nbytes
            write_whole(journal, json.dumps([done, size]))
            bar.update(len(part))


def batches(lines: Iterable[str], letters: int) -> Iterator[list[str]]:
    """The lines, as many at once as have so many letters: neither short nor long ones fill the memory."""
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line) + 1
        if size >= letters:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def progress(what: str, lines: Texts, done: int = 0) -> Any:
    """A bar that goes through the lines, or is told of them; it shows what takes longer than a moment, in a log now and then."""
    from datasets.utils import tqdm

    often = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(lines, what, total=len(lines), initial=done, unit=" lines", unit_scale=True, delay=2.0, mininterval=often)
