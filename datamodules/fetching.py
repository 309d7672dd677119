"""Files by name: where they are, what they should hold, and a copy of them here."""

import errno
import hashlib
import os
import shutil
from pathlib import Path
from typing import Literal, NamedTuple
from urllib.parse import urldefrag, urlsplit
from zipfile import BadZipFile, ZipFile

Format = Literal["text", "csv", "tsv", "json", "parquet"]

FORMATS: dict[str, Format] = {
    ".txt": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
}
ARCHIVE = "zip://"


class Location(NamedTuple):
    """What a name says: `[zip://MEMBER::]PATH`, or `[zip://MEMBER::]URL[#ALGORITHM=CHECKSUM]`.

    Attributes:
        member: path of the file inside a zip archive; empty where the name is that of the file itself.
        place: path or URL, of the archive if there is one.
        algorithm: sha1 or sha256; empty without a checksum.
        checksum: of what is downloaded, the archive if there is one.
    """

    member: str
    place: str
    algorithm: str
    checksum: str

    @property
    def is_url(self) -> bool:
        """Whether it is to be downloaded."""
        return self.place.startswith(("http://", "https://"))

    @property
    def format(self) -> Format:
        """By the ending before .gz, of path, URL or member; an unknown one is that of text."""
        path = self.member or (urlsplit(self.place).path if self.is_url else self.place)
        return FORMATS.get(Path(path.removesuffix(".gz")).suffix.lower(), "text")


def locate(name: str) -> Location:
    """What a name says. Raises ValueError for an archive or a checksum that is none."""
    member, place = "", name
    if name.startswith(ARCHIVE):
        member, _, place = name.removeprefix(ARCHIVE).partition("::")
        if not member or not place:
            raise ValueError(
                f"Files: {name} names no file of an archive: write zip://FILE::ARCHIVE, as in zip://fra-eng/fra.txt::fra-eng.zip"
            )
    elif urlsplit(name).path.lower().endswith(".zip"):
        raise ValueError(f"Files: {name} is an archive: say which file of it to read, zip://FILE::{name}")
    bare = Location(member, place, "", "")
    if not bare.is_url:
        return bare
    url, fragment = urldefrag(place)
    algorithm, _, checksum = fragment.partition("=")
    if fragment and len(checksum) != {"sha1": 40, "sha256": 64}.get(algorithm):
        raise ValueError(
            f"Files: {name} ends in no checksum: write #sha1= with 40 digits, #sha256= with 64, or nothing after a #"
        )
    return Location(member, url, algorithm, checksum.lower())


def fetch(what: str, name: str) -> Path:
    """Where the file of a name lies here, once downloaded, verified and taken out of its archive where these are due.

    Args:
        what: is to come from it, as a message says: a split, for example.
        name: path or URL, as `Location` describes it.

    Raises:
        FileNotFoundError: if it is not there, or cannot be downloaded.
        ValueError: if the name or the checksum is wrong, or the archive is none or lacks the file.
    """
    location = locate(name)
    path = download(location) if location.is_url else local(what, location)
    return extract(path, location) if location.member else path


def local(what: str, location: Location) -> Path:
    """A file that is here, or FileNotFoundError."""
    path = Path(location.place).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"Files: {what} is to come from {location.place}, and no such file exists: correct the path or fetch the file"
        )
    return path


def download(location: Location) -> Path:
    """The cached copy of a file of the web, with the checksum it should have."""
    from datasets import DownloadConfig, DownloadManager

    url, algorithm = location.place, location.algorithm
    named = {"headers": {"User-Agent": "unroll"}}  # some sites turn away whoever goes by the name of a Python library
    try:
        path = Path(
            DownloadManager(download_config=DownloadConfig(storage_options={"http": named, "https": named})).download(url)
        )
    except Exception as error:
        raise FileNotFoundError(
            f"Files: {url} cannot be downloaded ({reason(error)}): fetch it elsewhere and give its path"
        ) from error
    if algorithm:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, algorithm).hexdigest()
        if found != location.checksum:
            raise ValueError(
                f"Files: {url} has the {algorithm} {found} instead of {location.checksum}: fetch it anew, or correct it"
            )
    return path


def extract(archive: Path, location: Location) -> Path:
    """A copy of one file of a zip archive, kept beside the downloads; its contents and its last name alone decide where."""
    from datasets import config

    try:
        with ZipFile(archive) as files:
            held = [name for name in files.namelist() if not name.endswith("/")]
            if location.member not in held:
                shown = ", ".join(held[:5]) + (", ..." if len(held) > 5 else "")
                raise ValueError(
                    f"Files: {location.place} has no {location.member!r}: name one of its {len(held)} files, {shown}"
                )
            with files.open(location.member) as member:
                digest = hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type]  # it reads as a file does
            copy = Path(config.DOWNLOADED_DATASETS_PATH) / "members" / digest / Path(location.member).name
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                partial = copy.with_name(f"{copy.name}.{os.getpid()}")
                with files.open(location.member) as member, partial.open("wb") as out:
                    shutil.copyfileobj(member, out)
                partial.replace(copy)  # whole, or not there
            return copy
    except (BadZipFile, RuntimeError, NotImplementedError) as error:  # no archive; encrypted; an unknown compression
        raise ValueError(
            f"Files: {location.member} does not come out of {location.place} ({reason(error)}):"
            " unpack it elsewhere and give the path of the file"
        ) from error


def is_full_disk(error: Exception) -> bool:
    """Whether a disk or a quota is used up; `datasets` tells it in the cause."""
    cause = error.__cause__ or error
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)


def reason(error: Exception) -> str:
    """What went wrong, on one line; `datasets` tells it in the cause."""
    cause = error.__cause__ or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0]
