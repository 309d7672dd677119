"""The HSK format of English-Chinese sentences: blocks of five lines, each with its label.

    english: Hey, Randy, have you had your lunch yet?
    hsk: 1
    mandarin: ...
    pinyin: ...
    --

`python -m datamodules.hsk FILE OUT.csv` exports it as a table of four columns; FILE may be a path, a URL, or the id of a dataset
of the Hugging Face hub, such as swaption2009/20k-en-zh-translation-pinyin-hsk.
"""

import csv
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

from datamodules.pairs import Pairs, PairSource
from datamodules.sources import Files, Hub, Source, Split, Texts

Column = Literal["english", "hsk", "mandarin", "pinyin"]
SEPARATOR = "--"


class Entry(NamedTuple):
    """A sentence in both languages.

    Attributes:
        english: the sentence.
        hsk: the level of the word it was written for, as the file writes it.
        mandarin: its translation.
        pinyin: how that is pronounced.
    """

    english: str
    hsk: str
    mandarin: str
    pinyin: str


@dataclass(frozen=True)
class HSK(PairSource):
    """Pairs from lines in the HSK format, such as those of `swaption2009/20k-en-zh-translation-pinyin-hsk` on the hub.

    Args:
        lines: where they come from: `datamodules.sources.Hub` or `Files`. Pairs are held out here, not lines there.
        source: which of english, hsk, mandarin and pinyin to translate.
        target: into which.
    """

    lines: Source
    source: Column = "english"
    target: Column = "mandarin"

    def __post_init__(self) -> None:
        super().__post_init__()
        for side in (self.source, self.target):
            if side not in Entry._fields:
                raise ValueError(f"HSK: there is no {side!r} in a block: choose from {list(Entry._fields)}")

    def describe(self) -> dict[str, Any]:
        """Includes what the lines say of themselves."""
        return {"class": type(self).__name__, **vars(self), "lines": self.lines.describe()}

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Refuses a malformed block."""
        return {split: self.pairs(read(lines, split)) for split, lines in self.lines.splits().items()}

    def pairs(self, entries: Iterable[Entry]) -> Pairs:
        """The two sides of each entry."""
        return Pairs.of([(getattr(entry, self.source), getattr(entry, self.target)) for entry in entries])


def read(lines: Iterable[str], name: str) -> Iterator[Entry]:
    """The entries in lines; empty lines between blocks, and a missing separator after the last, are let pass.

    Raises:
        ValueError: for a malformed block, with the number of its first wrong line in what is called `name`.
    """
    numbered = enumerate(lines, start=1)
    for number, line in numbered:
        if not line.strip():
            continue
        block = [(number, line), *islice(numbered, len(Entry._fields))]
        block += [(block[-1][0] + 1, "")] * (len(Entry._fields) - len(block))
        yield Entry(*(value(name, *row, label) for row, label in zip(block, Entry._fields, strict=False)))
        for number, line in block[len(Entry._fields) :]:
            if line.strip() != SEPARATOR:
                raise ValueError(
                    f"HSK: line {number} of {name} should be {SEPARATOR!r}, and reads {line[:60]!r}: correct the block"
                )


def value(name: str, number: int, line: str, label: str) -> str:
    """What follows the label of a line; only the first ": " is the label's, for texts have their own."""
    if line == f"{label}:":  # an editor may have cut the space after a label with nothing behind it
        return ""
    found, _, text = line.partition(": ")
    if found != label:
        raise ValueError(
            f"HSK: line {number} of {name} should begin with '{label}: ', and reads {line[:60]!r}: correct the block"
        )
    return text


def export(name: str, out: str) -> int:
    """Write the sentences of a file, or of a dataset of the hub, as CSV with a header; how many there are."""
    entries = list(read(lines_of(name), name))
    with Path(out).open("w", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(Entry._fields)
        writer.writerows(entries)
    return len(entries)


def lines_of(name: str) -> Texts:
    """The lines of a file, by path or URL, or else of a dataset of the hub.

    Raises:
        FileNotFoundError: if it is neither.
        ValueError: if it holds no text.
    """
    if Path(name).is_file() or not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return Files(name, format="text").splits()["train"]
    try:
        return Hub(name).splits()["train"]
    except ValueError as error:
        raise FileNotFoundError(f"HSK: {name} is neither a file here nor a dataset of the hub: {error}") from error


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python -m datamodules.hsk FILE OUT.csv")
    try:
        print(f"{sys.argv[2]}: {export(*sys.argv[1:])} sentences")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
