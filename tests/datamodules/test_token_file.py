"""Corpora larger than memory: made in parts, which an interruption leaves standing, once, and in bounded memory."""

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules import sources, token_file
from datamodules.corpus import Corpus
from datamodules.recipes import Characters, Words
from datamodules.sources import Files, Source, Split, Texts
from datamodules.token_file import batches, progress, write_tokens
from datamodules.tokenizers import Tokenizer

LINES = [f"{number} times {number} is {number**2}" for number in range(1000)]
PROJECT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded; processes that it starts neither."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "datasets"))


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that have been encoded, as they come."""
    lines: list[str] = []
    encode = Tokenizer.encode_batch

    def watched(tokenizer: Tokenizer, texts: Sequence[str], dropout: bool = False) -> list[list[int]]:
        lines.extend(texts)
        return encode(tokenizer, texts, dropout)

    monkeypatch.setattr(Tokenizer, "encode_batch", watched)
    return lines


def write(path: Path, lines: Sequence[str]) -> Files:
    path.write_text("".join(f"{line}\n" for line in lines))
    return Files(str(path))


def lengths(lines: list[str]) -> np.ndarray:
    return np.array([len(line) for line in lines], dtype=np.uint8)


def test_batches_end_where_their_letters_are_enough() -> None:
    assert list(batches(["abc", "", "defgh", "i"], 5)) == [["abc", ""], ["defgh"], ["i"]]
    assert list(batches([], 5)) == []


def test_what_was_written_after_the_last_entry_of_the_journal_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_file, "LETTERS_A_PART", 4)
    parts: list[list[str]] = []

    def encode(lines: list[str]) -> np.ndarray:
        parts.append(lines)
        if len(parts) == 3:
            raise RuntimeError("stop")
        return lengths(lines)

    lines = ["a", "bb", "ccc", "dddd", "e"]
    with pytest.raises(RuntimeError, match="stop"):
        write_tokens(tmp_path / "train.ids", lines, encode)
    with (tmp_path / "train.ids").open("ab") as file:
        file.write(b"half of a part")
    for _ in range(2):  # the second finds nothing to do
        write_tokens(tmp_path / "train.ids", lines, encode)
        assert np.fromfile(tmp_path / "train.ids", np.uint8).tolist() == [1, 2, 3, 4, 1]
    assert parts == [["a", "bb"], ["ccc"], ["dddd"], ["dddd"], ["e"]]


def test_a_bar_begins_where_the_lines_do() -> None:
    bar = progress("Tokenising train", ["a"] * 5, 2)
    assert (bar.n, bar.total) == (2, 5)
    assert list(progress("Training", ["a", "b"])) == ["a", "b"]


MAKE = """
import sys, time
from pathlib import Path
from datamodules import token_file
from datamodules.corpus import Corpus
from datamodules.recipes import Words
from datamodules.sources import Files
from datamodules.tokenizers import Tokenizer

text, cache, pause = sys.argv[1:]
token_file.LETTERS_A_PART = 500
encode, encoded = Tokenizer.encode_batch, []

def slowly(tokenizer, texts, dropout=False):
    time.sleep(float(pause))
    encoded.extend(texts)
    return encode(tokenizer, texts, dropout)

Tokenizer.encode_batch = slowly
corpus = Corpus(Files(text), Words(), "<eos>", Path(cache))
print(len(encoded), len(corpus.arrays["train"]))
"""


def make(text: Path, cache: Path, pause: float) -> "subprocess.Popen[str]":
    """A process that makes a corpus, and prints how many lines it encoded, and how many tokens there are."""
    command = [sys.executable, "-c", MAKE, str(text), str(cache), str(pause)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)


def wait_for(folder: Path, pattern: str) -> Path:
    """The first file of a pattern, once it is there."""
    for _ in range(3000):
        if found := list(folder.glob(pattern)):
            return found[0]
        time.sleep(0.02)
    raise TimeoutError(f"{folder} has no {pattern}")


def test_a_killed_process_leaves_what_the_next_one_goes_on_with(tmp_path: Path, encoded: list[str]) -> None:
    source = write(tmp_path / "text.txt", LINES)
    process = make(tmp_path / "text.txt", tmp_path / "cache", pause=0.2)
    journal = wait_for(tmp_path, "cache/*/train.ids.journal")
    process.kill()
    process.communicate()
    done, size = json.loads(journal.read_text())
    assert 0 < done < len(LINES)
    assert size == 2 * sum(len(line.split()) + 1 for line in LINES[:done])

    corpus = Corpus(source, Words(), "<eos>", tmp_path / "cache")
    assert encoded == LINES[done:]
    whole = Corpus(source, Words(), "<eos>", tmp_path / "other")
    assert np.array_equal(corpus.arrays["train"], whole.arrays["train"])
    assert corpus.tokenizer.to_json() == whole.tokenizer.to_json()


def test_of_two_processes_one_makes_the_corpus_and_the_other_waits(tmp_path: Path) -> None:
    write(tmp_path / "text.txt", LINES)
    both = [make(tmp_path / "text.txt", tmp_path / "cache", pause=0.01) for _ in range(2)]
    said = sorted(process.communicate()[0].split() for process in both)
    tokens = str(sum(len(line.split()) + 1 for line in LINES))
    assert said == [["0", tokens], [str(len(LINES)), tokens]]


def test_opening_a_corpus_again_reads_no_text(tmp_path: Path, encoded: list[str]) -> None:
    source = write(tmp_path / "text.txt", LINES)
    stat = (tmp_path / "text.txt").stat()
    made = Corpus(source, Words(), "<eos>", tmp_path / "cache")
    (tmp_path / "text.txt").write_bytes(b"?" * stat.st_size)
    os.utime(tmp_path / "text.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    encoded.clear()
    again = Corpus(source, Words(), "<eos>", tmp_path / "cache")
    assert encoded == []
    assert np.array_equal(made.arrays["train"], again.arrays["train"])


@pytest.mark.parametrize("rows", [7, 1000, 5000])
def test_blocks_of_a_file_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    monkeypatch.setattr(sources, "ROWS_A_BLOCK", rows)
    source = write(tmp_path / "text.txt", LINES)
    texts = Files(source.train, validation_fraction=0.4).splits()
    assert list(texts["train"]) + list(texts["validation"]) == LINES


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small disk takes the rights to mount one: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


class Copies(Source):
    """A text many times over, which takes no disk."""

    class Lines:
        def __len__(self) -> int:
            return 40 * len(LINES)

        def __iter__(self) -> Iterator[str]:
            for _ in range(40):
                yield from LINES

    def splits(self) -> dict[Split, Texts]:
        return {"train": self.Lines()}

    def describe(self) -> dict[str, Any]:
        return {"source": "Copies"}


def test_a_full_disk_is_said_and_what_is_there_is_gone_on_with(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    """Half of 1.1 million tokens of a byte each, and the files beside them, fit on half the disk."""
    monkeypatch.setattr(token_file, "LETTERS_A_PART", 100_000)
    whole = Corpus(Copies(), Characters(), None, tmp_path / "cache")
    total = len(whole.arrays["train"])
    (small_disk / "other").write_bytes(bytes(2**20 - total // 2))
    encoded.clear()
    with pytest.raises(OSError, match=f"cache: the disk of {small_disk} is full: make room, or set data.cache"):
        Corpus(Copies(), Characters(), None, small_disk)
    assert not list(small_disk.glob("*/corpus.json"))
    before = len(encoded)
    assert before < 0.7 * len(Copies.Lines())

    (small_disk / "other").unlink()
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    encoded.clear()
    corpus = Corpus(Copies(), Characters(), None, small_disk)
    assert np.array_equal(corpus.arrays["train"], whole.arrays["train"])
    assert len(encoded) < 0.7 * len(Copies.Lines())


def test_a_full_disk_of_the_copies_that_datasets_keeps(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", small_disk)
    with pytest.raises(OSError, match=f"texts: the disk of {small_disk} is full: make room, or set HF_DATASETS_CACHE"):
        write(tmp_path / "text.txt", LINES * 60).splits()


MEASURE = """
import sys
from pathlib import Path
from datamodules.corpus import Corpus
from datamodules.recipes import Words
from datamodules.sources import Files

for text in sys.argv[2:]:
    corpus = Corpus(Files(text), Words(max_size=1000), "<eos>", Path(sys.argv[1]))
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(len(corpus.arrays["train"]), int(status["VmHWM"].split()[0]) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process's memory is in /proc, which is Linux's")
def test_memory_does_not_grow_with_the_corpus(tmp_path: Path) -> None:
    """A corpus that has 100 MB of text more, as much more of Arrow, and 26 MB more of ids, takes 40 MB more at most."""
    draw = random.Random(0)
    words = [f"word{number}" for number in range(5000)]
    block = "".join(" ".join(draw.choices(words, k=12)) + "\n" for _ in range(20_000))
    for name, copies in (("small", 20), ("large", 70)):
        with (tmp_path / name).open("w") as file:
            for _ in range(copies):
                file.write(block)
    files = [str(tmp_path / "small"), str(tmp_path / "large")]
    assert (tmp_path / "large").stat().st_size > (tmp_path / "small").stat().st_size + 10**8
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "cache"), *files]
    said = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True).stdout.split()
    (_, before), (tokens, after) = zip(said[::2], said[1::2], strict=True)
    assert int(tokens) == 70 * 20_000 * 13
    assert int(after) - int(before) < 40
