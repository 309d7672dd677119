"""Sources: which lines come out, how they are split, and what a wrong setting says."""

import gzip
import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import load_from_hub, serve_files

from datamodules.builtin import HumanNumbers, PythonDocs, is_prose, paragraphs, spread
from datamodules.recipes import Words
from datamodules.sources import SPLITS, Files, Hub, Source


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


def write(path: Path, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def lines(source: Source, split: str = "train") -> list[str]:
    return list({str(name): texts for name, texts in source.splits().items()}[split])


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz", "no_ending", "brackets[1].txt"])
def test_lines_of_a_text_file_are_kept_one_by_one(tmp_path: Path, name: str) -> None:
    file = write(tmp_path / name, "\ufeffone\r\n\r\n two \n\n\nthree\u2028still three")
    texts = Files(file).splits()["train"]
    assert list(texts) == list(texts) == ["one", "", " two ", "", "", "three\u2028still three"]
    assert len(texts) == 6


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", 'text,n\n"a, b",1\n,2\nNA,3\n', ["a, b", "", "NA"]),
        ("a.csv.gz", "n,text\n1,a\n", ["a"]),
        ("a.tsv", 'n\ttext\n1\t"a, b\n', ['"a, b']),
        ("a.jsonl", '{"text": "a\\n"}\n{"text": "b"}\n', ["a", "b"]),
        ("a.json.gz", '[{"text": "a"}, {"text": "b"}]', ["a", "b"]),
    ],
)
def test_formats(tmp_path: Path, name: str, content: str, expected: list[str]) -> None:
    assert lines(Files(write(tmp_path / name, content))) == expected


def test_parquet(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_dict({"sentence": ["a", "b"]}).to_parquet(tmp_path / "a.parquet")
    assert lines(Files(str(tmp_path / "a.parquet"), column="sentence")) == ["a", "b"]


def test_several_files_come_in_order_and_a_format_can_be_named(tmp_path: Path) -> None:
    files = [write(tmp_path / "b.log", "1\n2\n"), write(tmp_path / "a.csv", "3,4\n")]
    assert lines(Files(files, format="text")) == ["1", "2", "3,4"]


def test_fractions_hold_out_the_end(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "".join(f"{i}\n" for i in range(10)))
    splits = Files(file, validation_fraction=0.1, test_fraction=0.25).splits()
    assert {split: list(texts) for split, texts in splits.items()} == {
        "train": ["0", "1", "2", "3", "4", "5"],  # floor(0.65 · 10)
        "validation": ["6"],
        "test": ["7", "8", "9"],
    }
    twenty = write(tmp_path / "b.txt", "line\n" * 20)
    splits = Files(twenty, validation_fraction=0.05, test_fraction=0.05).splits()
    assert [len(splits[split]) for split in SPLITS] == [18, 1, 1]  # 1 − 0.05 − 0.05 is less than 0.9 in floating point


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    source = Files(write(tmp_path / "a.txt", "old\n"))
    before, again = source.describe(), source.describe()
    assert before == again == json.loads(json.dumps(before))
    assert lines(source) == ["old"]
    write(tmp_path / "a.txt", "new\n")
    os.utime(tmp_path / "a.txt", (2e9, 2e9))
    assert source.describe() != before
    assert lines(source) == ["new"]


def test_a_download_is_verified(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    content = gzip.compress(b"one\n\ntwo\n")
    (tmp_path / "web" / "a.txt.gz").write_bytes(content)
    with serve_files(tmp_path / "web") as address:
        url = f"{address}/a.txt.gz"
        for checksum in (f"sha1={hashlib.sha1(content).hexdigest()}", f"sha256={hashlib.sha256(content).hexdigest().upper()}"):
            assert lines(Files(f"{url}#{checksum}")) == ["one", "", "two"]
        with pytest.raises(ValueError, match=f"{url} has the sha1 .* instead of {'0' * 40}"):
            Files(f"{url}#sha1={'0' * 40}").splits()
        with pytest.raises(FileNotFoundError, match=r"none\.txt cannot be downloaded"):
            Files(f"{address}/none.txt").splits()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train": []}, "nothing to train on"),
        ({"train": "a", "validation_fraction": -0.1}, "below 1 together"),
        ({"train": "a", "validation_fraction": 0.5, "test_fraction": 0.5}, "below 1 together"),
        ({"train": "a", "test": "b", "test_fraction": 0.1}, "leave one of them out"),
        ({"train": "http://a/b#sha1=123"}, "ends in no checksum"),
        ({"train": "http://a/b#md5=123"}, "ends in no checksum"),
    ],
)
def test_bad_settings_of_files(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Files(**settings)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"", "not empty"),
        ("empty.jsonl", b"", "not empty"),
        ("latin.txt", b"caf\xe9\n", "UnicodeDecodeError"),
        ("a.csv", b"a,b\nx,y\n", r"no column 'text': set column to one of \['a', 'b'\]"),
        ("b.csv", b"text\n12\n", "holds int64, not text"),
        ("gap.jsonl", b'{"text": "a"}\n{"text": null}\n', "1 of 2 rows of train have nothing"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Files(write(tmp_path / name, content)).splits()


def test_missing_files_short_files_and_mixed_formats(tmp_path: Path) -> None:
    short = write(tmp_path / "a.txt", "one line\n")
    for ask in (Source.splits, Source.describe):
        with pytest.raises(FileNotFoundError, match=r"validation is to come from nowhere\.txt"):
            getattr(Files(short, validation="nowhere.txt"), ask.__name__)()
    with pytest.raises(ValueError, match=r"train has no texts, of \{'train': 0, 'validation': 1\}"):
        Files(short, validation_fraction=0.1).splits()
    with pytest.raises(ValueError, match=r"mixes \['json', 'text'\]"):
        Files([short, write(tmp_path / "a.json", "[]")]).splits()


LOAD = """
import json, sys
from datamodules.sources import Hub
from datamodules.recipes import Pretrained
for settings in json.load(sys.stdin):
    try:
        print(json.dumps({split: list(texts) for split, texts in Hub(**settings).splits().items()}))
    except ValueError as error:
        print(error)
print(Pretrained("someone/numbers").load().encode("three <eos>"))
"""


def test_hub(tmp_path: Path) -> None:
    repository = tmp_path / "someone" / "numbers"
    repository.mkdir(parents=True)
    write(repository / "train.csv", "line\none\ntwo\nthree\nfour\n")
    write(repository / "test.csv", "line\nfive\n")
    write(repository / "tokenizer.json", Words().train(["one two three"]).to_json())
    numbers = {"name": "someone/numbers", "column": "line"}
    settings = [
        {**numbers, "validation_fraction": 0.25},
        {**numbers, "split_names": {"train": "test", "test": "train[:2]"}},
        {**numbers, "test_fraction": 0.25},
        {"name": "someone/nothing"},
    ]
    fraction, names, both, nothing, ids = load_from_hub(tmp_path, LOAD, settings)
    assert json.loads(fraction) == {"train": ["one", "two", "three"], "validation": ["four"], "test": ["five"]}
    assert json.loads(names) == {"train": ["five"], "test": ["one", "two"]}
    assert "has a test split and test_fraction=0.25" in both
    assert "Hub: someone/nothing does not load" in nothing
    assert ids == "[3, 1]"


def test_bad_settings_of_the_hub() -> None:
    with pytest.raises(ValueError, match="train at least"):
        Hub("someone/numbers", split_names={"test": "train"})


def test_human_numbers() -> None:
    splits = HumanNumbers().splits()
    train, validation = list(splits["train"]), list(splits["validation"])
    tokens = " . ".join(train + validation).split()
    assert train[0] == "one"
    assert train[1233] == "one thousand two hundred thirty four"
    assert len(tokens) == 63_098
    assert len(set(tokens)) == 30
    words = [sum(len(line.split()) + 1 for line in part) for part in (train[:-1], train, train + validation)]
    assert words[0] < 0.8 * words[2] <= words[1]
    assert validation[0] == "eight thousand eighty six"


def test_human_numbers_of_other_languages() -> None:
    assert lines(HumanNumbers("fr", limit=30), "validation")[0] == "vingt six"
    assert lines(HumanNumbers("de", limit=2, validation_fraction=0)) == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"language": "english"}, r"no language 'english': choose one of \['am'.*'vi'\]"),
        ({"limit": 0}, "counting starts at 1"),
        ({"validation_fraction": 1.0}, "below 1 together"),
        ({"limit": 1}, "validation has no texts"),
        ({"language": "am", "limit": 2000}, "cannot write .* in 'am'"),
    ],
)
def test_bad_settings_of_human_numbers(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HumanNumbers(**settings).splits()


REST = """The "print" thing
*****************

The **print** thing shows its *value* – don’t forget the built-
in one, however:

   print(value)

   print_stmt ::= "print" value

Note:

  * It shows the "value" at once, and never asks why.
"""


def test_prose_of_marked_up_text() -> None:
    assert [line for line in paragraphs(REST) if is_prose(line)] == ["It shows the value at once, and never asks why."]
    assert "The print thing shows its value - don't forget the built-in one, however:" in paragraphs(REST)


def test_python_docs() -> None:
    splits = {split: list(texts) for split, texts in PythonDocs().splits().items()}
    everything = [line for split in SPLITS for line in splits[split]]
    assert len(everything) == len(set(everything))
    assert sum(map(len, splits["train"])) > 100_000
    assert min(sum(map(len, splits[split])) for split in ("validation", "test")) > 1000
    assert all(line.isascii() and "\n" not in line and "::=" not in line for line in everything)
    assert set(PythonDocs(0.0, 0.0).splits()) == {"train"}
    assert PythonDocs().describe()["python"] in sys.version


def test_spread_takes_every_nth_name() -> None:
    names = list("abcdefghij")
    assert spread(names, 0.2) == ["c", "h"]
    assert spread(names, 0.0) == []
