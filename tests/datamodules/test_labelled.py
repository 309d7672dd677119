"""Texts with labels: where they come from, how they are held out, and what is refused."""

import gzip
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import GivenLines

from datamodules.joined import Joined
from datamodules.labelled import LabelFolders, LabelledText, LabelTable
from datamodules.number_labels import NumberLanguages


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    """A file for each label, one of them gzipped."""
    folder = tmp_path / "reviews"
    folder.mkdir()
    (folder / "bad.txt").write_text("".join(f"dull {n} .\n" for n in range(40)))
    (folder / "good.txt.gz").write_bytes(gzip.compress("".join(f"fine {n} .\n" for n in range(20)).encode()))
    return folder


def test_a_file_for_each_label_has_a_text_a_line(lines: Path) -> None:
    texts = LabelFolders(str(lines)).labelled()["train"]
    assert Counter(label for _, label in texts) == {"bad": 40, "good": 20}
    assert texts[0] == LabelledText("dull 0 .", "bad")
    assert texts[-1] == LabelledText("fine 19 .", "good")
    assert len(LabelFolders(str(lines), labels=["good", "bad"]).splits()["train"]) == 60


def test_a_line_ends_at_a_line_feed_alone(lines: Path) -> None:
    (lines / "bad.txt").write_text("one\x85two\u2028three\nfour")
    assert [text for text, label in LabelFolders(str(lines)).labelled()["train"] if label == "bad"] == [
        "one\x85two\u2028three",
        "four",
    ]


def test_a_folder_for_each_label_has_a_text_a_file(tmp_path: Path) -> None:
    for name, text in {"neg/1.txt": "dull\nand long", "neg/0.txt": "no", "pos/0.txt": "yes", "unsup/0.txt": "who knows"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    texts = LabelFolders(str(tmp_path), labels=["neg", "pos"]).labelled()["train"]
    assert texts == [("no", "neg"), ("dull\nand long", "neg"), ("yes", "pos")]


@pytest.mark.parametrize("labels", [["good", "bad"], [1, 0]])
def test_a_table_has_a_column_of_labels(tmp_path: Path, labels: list[Any]) -> None:
    (tmp_path / "train.csv").write_text(f'review,stars\n"fine, really",{labels[0]}\ndull,{labels[1]}\n')
    source = LabelTable(str(tmp_path / "train.csv"), test=str(tmp_path / "train.csv"), text="review", label="stars")
    expected = [("fine, really", str(labels[0])), ("dull", str(labels[1]))]
    assert source.labelled() == {"train": expected, "test": expected}


def test_each_label_is_held_out_alike_and_the_same_again_from_the_same_seed(lines: Path) -> None:
    def held(seed: int) -> dict[Any, list[LabelledText]]:
        return LabelFolders(str(lines), validation_fraction=0.1, test_fraction=0.1, hold_out_seed=seed).labelled()

    splits = held(0)
    counts = {split: dict(Counter(label for _, label in texts)) for split, texts in splits.items()}
    assert counts == {"train": {"bad": 32, "good": 16}, "validation": {"bad": 4, "good": 2}, "test": {"bad": 4, "good": 2}}
    assert sorted(text for texts in splits.values() for text in texts) == sorted(LabelFolders(str(lines)).labelled()["train"])
    assert held(0) == splits
    assert held(1)["test"] != splits["test"]
    assert splits["test"] != LabelFolders(str(lines)).labelled()["train"][-6:]  # drawn, not the last


def test_the_texts_alone_are_a_source_of_a_language_model_and_join_others(lines: Path) -> None:
    reviews = LabelFolders(str(lines), validation_fraction=0.1, test_fraction=0.1)
    joined = Joined([GivenLines(["a b", "c"]), reviews])
    splits = joined.splits()
    assert list(splits["train"])[:2] == ["a b", "c"]
    assert list(splits["train"])[2:] == list(reviews.splits()["train"])
    assert {split: len(texts) for split, texts in splits.items()} == {"train": 2 + 48, "validation": 6, "test": 6}
    assert joined.describe() == {"source": "Joined", "sources": [GivenLines(["a b", "c"]).describe(), reviews.describe()]}
    with pytest.raises(ValueError, match="no sources to join"):
        Joined([])


def test_the_description_changes_with_a_file(lines: Path) -> None:
    before = LabelFolders(str(lines)).describe()
    (lines / "bad.txt").write_text("other\n")
    assert LabelFolders(str(lines)).describe() != before


def test_numbers_in_words_are_labelled_with_their_language() -> None:
    splits = NumberLanguages(limit=100).labelled()
    assert LabelledText("forty two", "en") in [text for texts in splits.values() for text in texts]
    assert Counter(label for _, label in splits["test"]) == {"de": 10, "en": 10, "es": 10, "fr": 10}


class TestRefused:
    def test_an_empty_review(self, lines: Path) -> None:
        (lines / "bad.txt").write_text("dull\n\nboring\n")
        with pytest.raises(
            ValueError, match=r"line 2 of .*bad\.txt is empty, and nothing can be read out of it: drop it or fill it"
        ):
            LabelFolders(str(lines)).labelled()
        (lines / "bad.txt").write_text("text,label\ndull,bad\n  ,good\n")
        with pytest.raises(ValueError, match="row 2 of train is empty"):
            LabelTable(str(lines / "bad.txt"), format="csv").labelled()

    def test_a_row_without_a_label(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,label\ndull,bad\nfine,\n")
        with pytest.raises(ValueError, match="row 2 of train has no label: drop it or label it"):
            LabelTable(str(tmp_path / "a.csv")).labelled()

    def test_columns_that_are_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("text,stars\ndull,1\n")
        with pytest.raises(ValueError, match=r"train has no column 'label': set label to one of \['text', 'stars'\]"):
            LabelTable(str(tmp_path / "a.csv")).labelled()
        with pytest.raises(ValueError, match=r"train has no column 'review'"):
            LabelTable(str(tmp_path / "a.csv"), text="review").labelled()

    def test_a_label_that_training_does_not_know(self, tmp_path: Path) -> None:
        (tmp_path / "train.csv").write_text("text,label\na,x\nb,y\n")
        (tmp_path / "test.csv").write_text("text,label\na,z\n")
        with pytest.raises(ValueError, match=r"test has the label 'z', which no training text has, but \['x', 'y'\]"):
            LabelTable(str(tmp_path / "train.csv"), test=str(tmp_path / "test.csv")).labelled()

    def test_a_single_label(self, lines: Path) -> None:
        with pytest.raises(ValueError, match="all training texts have one label, 'bad'"):
            LabelFolders(str(lines), labels=["bad"]).labelled()

    def test_folders_that_are_not_there_or_hold_something_else(self, lines: Path) -> None:
        with pytest.raises(FileNotFoundError, match="there is no folder nowhere"):
            LabelFolders("nowhere").labelled()
        with pytest.raises(ValueError, match=r"has no great: choose labels among \['bad', 'good'\]"):
            LabelFolders(str(lines), labels=["great"]).labelled()
        (lines / "bad.txt").write_bytes(b"caf\xe9\n")
        with pytest.raises(ValueError, match=r"bad\.txt does not read as text .* convert it to UTF-8"):
            LabelFolders(str(lines)).labelled()
        (lines / "bad.txt").unlink()
        (lines / "bad.gz").write_bytes(b"no gzip")
        with pytest.raises(ValueError, match=r"bad\.gz does not read as text"):
            LabelFolders(str(lines)).labelled()

    def test_fractions_beside_a_split(self, lines: Path) -> None:
        with pytest.raises(ValueError, match=r"it has a test split and test_fraction=0.1: leave one of them out"):
            LabelFolders(str(lines), test=str(lines), test_fraction=0.1).labelled()
