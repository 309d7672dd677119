"""Lines of text that a command reads."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

BYTES_AT_ONCE = 2**20


def lines_of(file: str | None) -> Iterator[str]:
    """The lines of a file, or of standard input, as `arriving_lines` reads them."""
    for lines in arriving_lines(file):
        yield from lines


def arriving_lines(file: str | None) -> Iterator[list[str]]:
    """The lines of a file, or of standard input, in groups: as many as one read completes, so that none waits for a later one.

    They end where a line feed is, after a carriage return or not, and at no other mark that looks like an end. A mark of the
    byte order, with which some editors begin a file, is left out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is not UTF-8, after those before it.
    """
    name, number = file or "standard input", 0
    for group in groups_of_bytes(file):
        lines: list[str] = []
        for line in group:
            number += 1
            try:
                lines.append(line.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                yield lines
                raise ValueError(
                    f"input: line {number} of {name} is not UTF-8, for it holds the byte {line[error.start]:#04x};"
                    " convert the text, such as with iconv -f LATIN1 -t UTF-8"
                ) from None
        yield lines


def groups_of_bytes(file: str | None) -> Iterator[list[bytes]]:
    """The lines that each read of a file, or of standard input, completes, and at last what has no end."""
    if file is not None and not Path(file).is_file() and not Path(file).is_fifo():
        raise FileNotFoundError(f"input: there is no file {file}; give a text file, or pipe text in")
    with ExitStack() as stack:
        stream: Any = sys.stdin.buffer if file is None else stack.enter_context(Path(file).open("rb"))
        begun = b""
        while read := stream.read1(BYTES_AT_ONCE):
            *lines, begun = (begun + read).split(b"\n")
            yield lines
        if begun:
            yield [begun]
