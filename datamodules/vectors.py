"""Word vectors as text: a line a word, its numbers behind it, as GloVe and word2vec write them."""

import gzip
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from datamodules.fetching import fetch

GZIP = b"\x1f\x8b"
VECTORS = "the word vectors"  # as messages call them


class Vectors(NamedTuple):
    """What a file has of some words.

    Attributes:
        width: numbers of a word.
        of: by word, `(width,)` of float32.
    """

    width: int
    of: dict[str, np.ndarray]


def read_vectors(name: str, words: Collection[str]) -> Vectors:
    """The vectors of these words in a file, read line by line, so that the others need no memory.

    A first line of two numbers, as word2vec writes, counts words and features. Of a word that is there twice the first counts.

    Args:
        name: path or URL as `datamodules.sources.Files` takes one, compressed by gzip or not; `zip://FILE::ARCHIVE` for a file of
            an archive, such as zip://glove.6B.300d.txt::glove.6B.zip.
        words: spelled as in the file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if a line is no vector, or lacks numbers.
    """
    wanted, width = set(words), 0
    found: dict[str, np.ndarray] = {}
    with opened(fetch(VECTORS, name)) as file:
        for number, line in enumerate(file, start=1):
            fields = line.rstrip("\n ").split(" ") if not width else []
            if fields and number == 1 and len(fields) == 2 and all(field.isdecimal() for field in fields):
                width = int(fields[1])
                continue
            width = width or len(fields) - 1
            word = line.partition(" ")[0]
            if word in wanted and word not in found:
                found_word, *numbers = line.rstrip("\n ").rsplit(" ", width)
                if found_word == word:  # and not the beginning of several words in one line, which GloVe has too
                    found[word] = parsed(numbers, width, f"line {number} of {name}, {word!r},")
    return Vectors(width, found)


def parsed(numbers: list[str], width: int, where: str) -> np.ndarray:
    """A line's numbers."""
    try:
        vector = np.array(numbers, dtype=np.float32)
    except ValueError:
        vector = np.empty(0, dtype=np.float32)
    if len(vector) != width or not np.isfinite(vector).all():
        raise ValueError(f"vectors: {where} is not a word and {width} numbers: give vectors as text, a word a line")
    return vector


def opened(path: Path) -> TextIO:
    """A text file, compressed by gzip or not; what is no UTF-8 in it matches no word."""
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    if packed:
        return gzip.open(path, "rt", encoding="utf-8", errors="replace", newline="\n")
    return path.open(encoding="utf-8", errors="replace", newline="\n")


def lines_of(words: Iterable[str], vectors: np.ndarray) -> Iterator[str]:
    """The lines of a file in GloVe's format, of words and their vectors `(words, width)`."""
    for word, vector in zip(words, vectors, strict=True):
        yield f"{word} {' '.join(f'{number:.5f}' for number in vector)}\n"
