"""ByteSplit: where it cuts, and what it refuses."""

from pathlib import Path

import pytest

from datamodules.byte_split import ByteSplit, character_boundary
from datamodules.language import LanguageData
from datamodules.recipes import Bytes

TEXT = "one two\nthree\n\nvier fünf\nsechs"


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "text"
    path.write_bytes(TEXT.encode())
    return str(path)


def test_splits_follow_each_other_with_their_line_ends(file: str) -> None:
    splits = ByteSplit(file, train=10, validation=5, test=3).splits()
    assert {name: list(lines) for name, lines in splits.items()} == {
        "train": ["one two\n", "th"],
        "validation": ["ree\n", "\n"],
        "test": ["vie"],
    }
    assert [len(lines) for lines in splits.values()] == [2, 2, 1]


def test_a_cut_within_a_character_moves_behind_it(file: str) -> None:
    inside = TEXT.encode().index("ü".encode()) + 1
    splits = ByteSplit(file, train=inside, validation=4).splits()
    assert "".join(splits["train"]) == TEXT[: TEXT.index("ü") + 1]
    assert "".join(splits["validation"]) == "nf\n"  # its end stays where it was
    assert set(splits) == {"train", "validation"}
    assert character_boundary("a€".encode(), 2) == 4


def test_a_byte_is_a_token(file: str, tmp_path: Path) -> None:
    source = ByteSplit(file, train=20, validation=6)
    data = LanguageData(source, Bytes(), line_end=None, lanes=1, steps=4, cache=str(tmp_path / "cache"))
    assert [len(data.tokens(split)) for split in ("train", "validation")] == [20, 6]
    assert data.tokenizer.decode(data.tokens("train").tolist()) == TEXT.encode()[:20].decode()


def test_a_short_file_wrong_counts_and_what_is_no_text_are_refused(file: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 31 bytes, fewer than the 40 of the splits together"):
        ByteSplit(file, train=40).splits()
    with pytest.raises(ValueError, match="counts of bytes, of which train has some, got train=0"):
        ByteSplit(file, train=0)
    binary = tmp_path / "binary"
    binary.write_bytes(b"ab\xff\xfecd")
    with pytest.raises(ValueError, match="is no UTF-8 at byte 2 of a split"):
        list(ByteSplit(str(binary), train=6).splits()["train"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        ByteSplit(str(tmp_path / "nowhere"), train=1).splits()
