"""The cache of tokenised corpora: made once, opened in no time, never half made."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.corpus import Corpus
from datamodules.recipes import BPE, Bytes, Characters, TokenizerRecipe, Words
from datamodules.sources import Files, Source, Split, Texts


class Counted(Source):
    """Lines that count how often they are asked for."""

    def __init__(self, train: Texts | Sequence[str], validation: Sequence[str] = ("b a",)) -> None:
        self.lines: dict[Split, Any] = {"train": train, "validation": validation}
        self.asked = 0

    def splits(self) -> dict[Split, Texts]:
        self.asked += 1
        return self.lines

    def describe(self) -> dict[str, Any]:
        return {"source": "Counted"}


class Breaking:
    """Lines of which the third fails to come, at the second reading: the tokenizer has been trained."""

    def __init__(self) -> None:
        self.readings = 0

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[str]:
        self.readings += 1
        for number in range(5):
            if number == 3 and self.readings == 2:
                raise OSError("the disk is gone")
            yield "a b"


def ids(corpus: Corpus, split: str) -> list[int]:
    result: list[int] = corpus.arrays[split].tolist()
    return result


def test_a_line_end_follows_every_line_blank_ones_included(tmp_path: Path) -> None:
    corpus = Corpus(Counted(["a b a", "", "c"]), Words(), "<eos>", tmp_path)
    assert corpus.tokenizer.tokens(ids(corpus, "train")) == ["a", "b", "a", "<eos>", "<eos>", "c", "<eos>"]
    assert corpus.tokenizer.tokens(ids(corpus, "validation")) == ["b", "a", "<eos>"]


def test_without_a_line_end_lines_are_joined(tmp_path: Path) -> None:
    corpus = Corpus(Counted(["ab", "", "a"], ["ba"]), Characters(), None, tmp_path)
    assert corpus.tokenizer.tokens(ids(corpus, "train")) == ["a", "b", "a"]


def test_the_tokenizer_knows_the_training_split_alone(tmp_path: Path) -> None:
    corpus = Corpus(Counted(["a b"], ["a new"]), Words(), "<eos>", tmp_path)
    assert corpus.tokenizer.tokens(ids(corpus, "validation")) == ["a", "<unk>", "<eos>"]


def test_a_corpus_is_made_once_and_then_mapped(tmp_path: Path) -> None:
    source = Counted(["a b a", "c"])
    made = Corpus(source, Words(), "<eos>", tmp_path)
    again = Corpus(source, Words(), "<eos>", tmp_path)
    assert source.asked == 1
    assert isinstance(again.arrays["train"], np.memmap)
    assert not again.arrays["train"].flags.writeable
    assert {split: ids(again, split) for split in again.arrays} == {split: ids(made, split) for split in made.arrays}
    assert again.tokenizer.to_json() == made.tokenizer.to_json()


@pytest.mark.parametrize(("recipe", "line_end"), [(Words(), None), (Words(min_frequency=2), "<eos>"), (Characters(), "<unk>")])
def test_other_settings_make_another_corpus(tmp_path: Path, recipe: TokenizerRecipe, line_end: str | None) -> None:
    source = Counted(["a b a", "c"])
    Corpus(source, Words(), "<eos>", tmp_path)
    Corpus(source, recipe, line_end, tmp_path)
    assert source.asked == 2


def test_a_changed_file_makes_another_corpus(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a b\n")
    before = Corpus(Files(str(file)), Words(), "<eos>", tmp_path / "cache")
    file.write_text("a b\nc\n")
    after = Corpus(Files(str(file)), Words(), "<eos>", tmp_path / "cache")
    assert (len(before.arrays["train"]), len(after.arrays["train"])) == (3, 5)
    assert len(before.tokenizer) + 1 == len(after.tokenizer)


def test_a_line_end_that_is_no_token_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'<eos>' is not among its 3 tokens"):
        Corpus(Counted(["ab"]), Characters(), "<eos>", tmp_path)


@pytest.mark.parametrize(
    ("words", "dtype"), [(2**8 - 2, "uint8"), (2**8 - 1, "uint16"), (2**16 - 2, "uint16"), (2**16 - 1, "uint32")]
)
def test_ids_have_the_smallest_type_that_holds_them(tmp_path: Path, words: int, dtype: str) -> None:
    lines = [" ".join(f"w{number}" for number in range(start, min(start + 5000, words))) for start in range(0, words, 5000)]
    corpus = Corpus(Counted(lines, ["w0"]), Words(), "<eos>", tmp_path)
    assert len(corpus.tokenizer) == words + 2
    array = corpus.arrays["train"]
    assert array.dtype == dtype
    assert array.max() == words + 1
    assert sorted(set(array.tolist())) == list(range(1, words + 2))


def test_a_corpus_that_broke_off_is_made_whole(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the disk is gone"):
        Corpus(Counted(Breaking()), Words(), "<eos>", tmp_path)
    assert list(tmp_path.glob("*/train.ids"))  # it had begun
    source = Counted(["a b"] * 5)
    corpus = Corpus(source, Words(), "<eos>", tmp_path)
    assert source.asked == 1
    assert corpus.tokenizer.tokens(ids(corpus, "train")) == ["a", "b", "<eos>"] * 5


def test_a_split_without_a_token_is_an_empty_array(tmp_path: Path) -> None:
    assert ids(Corpus(Counted(["ab"], [""]), Characters(), None, tmp_path), "validation") == []


def test_dropout_is_for_the_training_split(tmp_path: Path) -> None:
    lines = ["the cat sat on the mat"] * 30
    corpus = Corpus(
        Counted(lines, lines), BPE(vocab_size=280, dropout=0.5, reserved_tokens=["<unk>", "<eos>"]), "<eos>", tmp_path
    )
    plain = [*corpus.tokenizer.encode(lines[0]), corpus.tokenizer.id_of("<eos>")]
    assert ids(corpus, "validation") == plain * 30
    assert len(corpus.arrays["train"]) > len(corpus.arrays["validation"])


def test_a_hundred_million_tokens_open_without_being_read(tmp_path: Path) -> None:
    source = Counted(["a b"])
    Corpus(source, Bytes(), "<eos>", tmp_path)
    (file,) = tmp_path.glob("*/train.ids")
    with file.open("r+b") as written:
        written.truncate(2 * 10**8)  # a sparse file of zeros, two bytes an id
    tracemalloc.start()
    corpus = Corpus(source, Bytes(), "<eos>", tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    array = corpus.arrays["train"]
    assert array.dtype == np.uint16
    assert (len(array), array[-1]) == (10**8, 0)
    assert peak < 2**20
    assert source.asked == 1
