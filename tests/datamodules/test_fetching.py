"""Files by name: what a name says, and what comes out of a zip archive, here or on the web."""

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from loopback_hub import QuietServer, serve, serve_files

from datamodules.fetching import Location, fetch, locate
from datamodules.parallel import PairTables, TabSeparated
from datamodules.sources import Files


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", str(tmp_path / "downloads"))


def pack(path: Path, **members: str) -> Path:
    """A zip archive of texts, a name's double underscore read as a slash and its last underscore as a dot."""
    with ZipFile(path, "w") as archive:
        archive.mkdir("fra-eng")
        for name, text in members.items():
            archive.writestr(name.replace("__", "/").replace("_", "."), text)
    return path


@pytest.mark.parametrize(
    ("name", "expected", "kind"),
    [
        ("a#b.csv.gz", Location("", "a#b.csv.gz", "", ""), "csv"),
        ("http://a/b.json?c=d.txt", Location("", "http://a/b.json?c=d.txt", "", ""), "json"),
        (f"https://a/b#sha1={'A' * 40}", Location("", "https://a/b", "sha1", "a" * 40), "text"),
        ("zip://b/c.csv::~/a.zip", Location("b/c.csv", "~/a.zip", "", ""), "csv"),
        (
            f"zip://c.parquet::http://a/b.zip#sha256={'0' * 64}",
            Location("c.parquet", "http://a/b.zip", "sha256", "0" * 64),
            "parquet",
        ),
    ],
)
def test_what_a_name_says(name: str, expected: Location, kind: str) -> None:
    assert locate(name) == expected
    assert locate(name).format == kind


@pytest.mark.parametrize("name", ["zip://a.txt", "zip://::a.zip", "zip://a.txt::"])
def test_an_archive_without_a_file_is_refused_before_anything_is_read(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} names no file of an archive: write zip://FILE::ARCHIVE"):
        Files(name)
    for archive in ("a.ZIP", f"http://a/b.zip?c=d#sha1={'0' * 40}"):
        with pytest.raises(ValueError, match=r"is an archive: say which file of it to read, zip://FILE::"):
            Files(archive)
    with pytest.raises(ValueError, match="ends in no checksum"):
        TabSeparated("zip://a.txt::http://a/b.zip#md5=1")


def test_a_file_of_an_archive_here(tmp_path: Path) -> None:
    pack(tmp_path / "a.zip", fra="Go.\tVa !\n", fra__eng_csv="source,target\nHi.,Salut !\n")
    assert list(TabSeparated(f"zip://fra::{tmp_path}/a.zip").splits()["train"]) == [("Go.", "Va !")]
    assert list(PairTables(f"zip://fra/eng.csv::{tmp_path}/a.zip").splits()["train"]) == [("Hi.", "Salut !")]


def test_a_file_of_an_archive_of_the_web_is_fetched_once_and_verified(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    archive = pack(tmp_path / "web" / "a.zip", a_txt="one\ntwo\n")
    checksum = hashlib.sha1(archive.read_bytes()).hexdigest()
    with serve_files(tmp_path / "web") as address:
        name = f"zip://a.txt::{address}/a.zip#sha1={checksum}"
        assert list(Files(name).splits()["train"]) == ["one", "two"]
        first = fetch("train", name)
        assert first.read_text() == "one\ntwo\n"
        written = first.stat().st_mtime_ns
        assert fetch("train", name) == first
        assert first.stat().st_mtime_ns == written
        with pytest.raises(ValueError, match=rf"{address}/a.zip has the sha1 {checksum} instead of {'0' * 40}"):
            fetch("train", f"zip://a.txt::{address}/a.zip#sha1={'0' * 40}")
        with pytest.raises(FileNotFoundError, match=rf"{address}/b.zip cannot be downloaded"):
            fetch("train", f"zip://a.txt::{address}/b.zip")


def test_a_download_says_who_asks(tmp_path: Path) -> None:
    """Some sites answer 406 to the names that Python's libraries give themselves."""
    asked: list[str | None] = []

    class Picky(QuietServer):
        def send_head(self) -> Any:
            asked.append(self.headers["User-Agent"])
            return super().send_head()

    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "a.txt").write_text("one\n")
    with serve(partial(Picky, directory=str(tmp_path / "web"))) as address:
        assert fetch("train", f"{address}/a.txt").read_text() == "one\n"
    assert asked
    assert set(asked) == {"unroll"}


def test_a_changed_archive_is_noticed(tmp_path: Path) -> None:
    source = Files(f"zip://a.txt::{pack(tmp_path / 'a.zip', a_txt='old')}")
    before = source.describe()
    assert list(source.splits()["train"]) == ["old"]
    pack(tmp_path / "a.zip", a_txt="new")
    os.utime(tmp_path / "a.zip", (2e9, 2e9))
    assert source.describe() != before
    assert list(source.splits()["train"]) == ["new"]


def test_a_name_in_an_archive_leads_nowhere_else(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("../../evil.txt", "boo")
    path = fetch("train", f"zip://../../evil.txt::{tmp_path}/a.zip")
    assert path.name == "evil.txt"
    assert path.is_relative_to(tmp_path / "downloads")
    assert not [found for found in tmp_path.rglob("evil.txt") if not found.is_relative_to(tmp_path / "downloads")]


def test_what_is_wrong_with_an_archive(tmp_path: Path) -> None:
    archive = pack(tmp_path / "a.zip", **{f"{letter}_txt": "x" for letter in "abcdef"})
    for missing in ("fra.txt", "fra-eng/"):  # a folder is no file
        with pytest.raises(
            ValueError, match=rf"a.zip has no '{missing}': name one of its 6 files, a.txt, b.txt, c.txt, d.txt, e.txt, \.\.\."
        ):
            fetch("train", f"zip://{missing}::{archive}")
    (tmp_path / "b.zip").write_text("no archive")
    with pytest.raises(ValueError, match=r"a.txt does not come out of .*b.zip \(BadZipFile: .*\): unpack it elsewhere"):
        fetch("train", f"zip://a.txt::{tmp_path}/b.zip")
    with pytest.raises(FileNotFoundError, match=r"train is to come from nowhere\.zip, and no such file exists"):
        fetch("train", "zip://a.txt::nowhere.zip")
