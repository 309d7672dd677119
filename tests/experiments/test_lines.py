"""Lines that commands read: where they end, and that none waits for the next."""

import os
from pathlib import Path

import pytest

from experiments.lines import arriving_lines, lines_of

MARKS = "a\rb \u2028c\u2029 \x85d\x0be\x0cf\x1cg"
"""One line; str.splitlines would see seven."""


def test_lines_end_where_wc_counts_one(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(f"\ufeffone\r\n\n{MARKS}\n last \nunfinished".encode())
    assert list(lines_of(str(tmp_path / "text"))) == ["one", "", MARKS, " last ", "unfinished"]


def test_a_long_file_is_cut_nowhere_else(tmp_path: Path) -> None:
    lines = [str(number) * 50 for number in range(20_000)]
    (tmp_path / "text").write_text("\n".join(lines) + "\n")
    assert (tmp_path / "text").stat().st_size > 3 * 2**20
    assert list(lines_of(str(tmp_path / "text"))) == lines
    assert 3 < len(list(arriving_lines(str(tmp_path / "text")))) < 10


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reading = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    writing = os.open(tmp_path / "pipe", os.O_WRONLY)
    os.write(writing, b"one\ntw")
    groups = arriving_lines(str(tmp_path / "pipe"))
    assert next(groups) == ["one"]
    os.write(writing, b"o\nthree\n")
    assert next(groups) == ["two", "three"]
    os.close(writing)
    assert list(groups) == []
    os.close(reading)


def test_a_line_that_is_not_utf_8_is_named_after_those_before_it(tmp_path: Path) -> None:
    file = tmp_path / "latin.txt"
    file.write_bytes(b"one\ntwo\nna\xefve\nfour\n")
    groups = arriving_lines(str(file))
    assert next(groups) == ["one", "two"]
    with pytest.raises(ValueError, match=rf"line 3 of {file} is not UTF-8, for it holds the byte 0xef; convert"):
        next(groups)
