"""Lines of text that a command reads."""

import sys
from collections.abc import Iterator
from pathlib import Path


def lines_of(file: str | None) -> Iterator[str]:
    """The lines of a file, or of standard input; they end where a line feed is, and at no other mark that looks like one.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if file is None:
        yield from (line.rstrip("\n") for line in sys.stdin)
        return
    if not Path(file).is_file():
        raise FileNotFoundError(f"input: there is no file {file}; give a text file, or pipe text in")
    with Path(file).open(encoding="utf-8-sig") as text:  # without the mark that some editors begin a file with
        yield from (line.rstrip("\n") for line in text)
