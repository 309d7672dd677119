"""The HSK format: blocks, the ": " in texts, and what is said of a malformed one."""

import csv
import runpy
import sys
from pathlib import Path

import pytest
from loopback_hub import load_from_hub

from datamodules.hsk import HSK, Column, Entry, read
from datamodules.parallel import PairTables
from datamodules.sources import Files


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


BLOCKS = """\
english: Hey, Randy, have you had your lunch yet?
hsk: 1
mandarin: 喂，兰迪，你吃午饭了吗？
pinyin: wèi, lán dí, nǐ chī wǔ fàn le ma?
--
english: He said: "It is 3: 0, and english: is a word."
hsk: 2
mandarin: 他说: "三比零"。
pinyin: tā shuō: "sān bǐ líng".
--
"""
ENTRIES = [
    Entry("Hey, Randy, have you had your lunch yet?", "1", "喂，兰迪，你吃午饭了吗？", "wèi, lán dí, nǐ chī wǔ fàn le ma?"),
    Entry('He said: "It is 3: 0, and english: is a word."', "2", '他说: "三比零"。', 'tā shuō: "sān bǐ líng".'),
]


@pytest.mark.parametrize("text", [BLOCKS, BLOCKS.removesuffix("--\n"), BLOCKS.replace("--\n", "--\n\n"), "\n" + BLOCKS])
def test_blocks_split_at_the_first_colon_only(text: str) -> None:
    assert list(read(text.splitlines(), "a file")) == ENTRIES


def test_a_label_may_have_nothing_behind_it() -> None:
    (entry,) = read(["english: Hi.", "hsk:", "mandarin: 嗨。", "pinyin: "], "a file")
    assert entry == ("Hi.", "", "嗨。", "")


@pytest.mark.parametrize(
    ("line", "text", "message"),
    [
        (1, "English: Hi.", "line 1 of a file should begin with 'english: ', and reads 'English: Hi.'"),
        (3, "mandarin; 嗨。", "line 3 of a file should begin with 'mandarin: ', and reads 'mandarin; 嗨。'"),
        (1, "english:: Hi.", "line 1 of a file should begin with 'english: '"),
        (5, "english: Bye.", "line 5 of a file should be '--', and reads 'english: Bye.'"),
        (7, "", "line 7 of a file should begin with 'hsk: ', and reads ''"),
        (10, "english: Bye.", "line 10 of a file should be '--'"),
    ],
)
def test_a_malformed_block_is_named_by_its_line(line: int, text: str, message: str) -> None:
    lines = BLOCKS.splitlines()
    lines[line - 1] = text
    with pytest.raises(ValueError, match=message):
        list(read(lines, "a file"))


def test_a_block_that_breaks_off_is_named_too() -> None:
    with pytest.raises(ValueError, match="line 8 of a file should begin with 'mandarin: ', and reads ''"):
        list(read(BLOCKS.splitlines()[:7], "a file"))


@pytest.mark.parametrize(("source", "target"), [("english", "mandarin"), ("mandarin", "english"), ("pinyin", "mandarin")])
def test_pairs_in_any_direction(tmp_path: Path, source: Column, target: Column) -> None:
    (tmp_path / "hsk.tsv").write_text("\ufeff" + BLOCKS.replace("\n", "\r\n"), encoding="utf-8")
    pairs = HSK(Files(str(tmp_path / "hsk.tsv"), format="text"), source, target).splits()["train"]
    assert list(pairs) == [(getattr(entry, source), getattr(entry, target)) for entry in ENTRIES]


def test_what_describes_it_changes_with_the_file_and_the_direction(tmp_path: Path) -> None:
    lines = Files(str(tmp_path / "a.txt"))
    (tmp_path / "a.txt").write_text(BLOCKS, encoding="utf-8")
    before = HSK(lines).describe()
    assert before == HSK(lines).describe() != HSK(lines, "mandarin", "english").describe()
    (tmp_path / "a.txt").write_text(BLOCKS * 2, encoding="utf-8")
    assert HSK(lines).describe() != before


def test_a_wrong_column_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no 'chinese' in a block: choose from"):
        HSK(Files("a.txt"), "english", "chinese")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*")
class TestCommand:
    """python -m datamodules.hsk"""

    def run(self, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["hsk", *arguments])
        runpy.run_module("datamodules.hsk", run_name="__main__")

    def test_it_writes_a_table_of_four_columns(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "hsk.txt").write_text(BLOCKS, encoding="utf-8")
        self.run(monkeypatch, str(tmp_path / "hsk.txt"), str(tmp_path / "out.csv"))
        assert capsys.readouterr().out.endswith("out.csv: 2 sentences\n")
        with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as table:
            assert list(csv.reader(table)) == [list(Entry._fields), *map(list, ENTRIES)]
        assert list(PairTables(str(tmp_path / "out.csv"), source="english", target="mandarin").splits()["train"]) == [
            (entry.english, entry.mandarin) for entry in ENTRIES
        ]

    def test_it_says_in_one_sentence_what_is_wrong(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "bad.txt").write_text(BLOCKS + "english: Hi.\n", encoding="utf-8")
        with pytest.raises(SystemExit, match=r"error: HSK: line 12 of .*bad\.txt should begin with 'hsk: '"):
            self.run(monkeypatch, str(tmp_path / "bad.txt"), str(tmp_path / "none.csv"))
        assert not (tmp_path / "none.csv").exists()
        with pytest.raises(SystemExit, match=r"error: Files: .* nowhere\.txt"):
            self.run(monkeypatch, "nowhere.txt", "out.csv")
        with pytest.raises(SystemExit, match=r"usage: python -m datamodules\.hsk FILE OUT\.csv"):
            self.run(monkeypatch)

    def test_it_reads_the_hub(self, tmp_path: Path) -> None:
        repository = tmp_path / "someone" / "sentences"
        repository.mkdir(parents=True)
        (repository / "all.txt").write_text(BLOCKS, encoding="utf-8")
        names = [("someone/sentences", str(tmp_path / "out.csv")), ("someone/nothing", "none.csv")]
        written, missing = load_from_hub(tmp_path, EXPORT, names)
        assert written == "2"
        assert (
            "HSK: someone/nothing is neither a file here nor a dataset of the hub: Hub: someone/nothing does not load" in missing
        )
        assert (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()[0] == "english,hsk,mandarin,pinyin"


EXPORT = """
import json, sys
from datamodules.hsk import export
for name, out in json.load(sys.stdin):
    try:
        print(export(name, out))
    except OSError as error:
        print(error)
"""
