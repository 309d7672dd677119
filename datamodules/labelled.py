"""Texts with a label each: what every source of them has in common, and tables and folders of them."""

import gzip
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.fetching import Format
from datamodules.holding_out import stratified_rows
from datamodules.sources import Files, Source, Split, Texts, check_fractions, pick_column, refuse_empty, refuse_fractions_of


class LabelledText(NamedTuple):
    """A text, and which kind of text it is."""

    text: str
    label: str


@dataclass(frozen=True, kw_only=True)
class LabelledSource(Source):
    """Texts with a label each, already split. To a language model it is a source of these texts alone.

    Args:
        validation_fraction: hold out this share of the training texts, drawn at random, the same share of every label.
        test_fraction: the same for testing.
        hold_out_seed: of the drawing.
    """

    validation_fraction: float = 0.0
    test_fraction: float = 0.0
    hold_out_seed: int = 0

    def __post_init__(self) -> None:
        check_fractions(self)

    @abstractmethod
    def load(self) -> dict[Split, list[LabelledText]]:
        """The texts of the splits that there are: train at least; none of them is blank."""

    def labelled(self) -> dict[Split, list[LabelledText]]:
        """The texts of "train", and of "validation" and "test" where there are such.

        Raises:
            FileNotFoundError: for a missing file or folder.
            ValueError: for data that are not what the settings say, a blank text, a label that training does not know, a single
                label, and a split that is empty.
        """
        name = type(self).__name__
        found = self.load()
        refuse_fractions_of(self, found)
        if self.validation_fraction or self.test_fraction:
            texts = found["train"]
            shares = (self.validation_fraction, self.test_fraction)
            rows = stratified_rows([text.label for text in texts], *shares, self.hold_out_seed)
            found |= {split: [texts[row] for row in held] for split, held in rows.items()}
        known = {text.label for text in refuse_empty(name, found)["train"]}
        if len(known) < 2:
            raise ValueError(f"{name}: all training texts have one label, {known.pop()!r}: give texts of two labels at least")
        for split, texts in found.items():
            if unknown := sorted({text.label for text in texts} - known):
                raise ValueError(
                    f"{name}: {split} has the label {unknown[0]!r}, which no training text has, but {sorted(known)}:"
                    " correct it, or give texts with it to train on"
                )
        return found

    def splits(self) -> dict[Split, Texts]:
        """The texts without their labels. Raises as `labelled`."""
        return {split: [text for text, _ in texts] for split, texts in self.labelled().items()}

    def describe(self) -> dict[str, Any]:
        """See Source."""
        return {"source": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class LabelTable(LabelledSource):
    """CSV, TSV, JSON or Parquet files with a column of texts and one of labels.

    Args:
        train: path, URL, or several, as `datamodules.sources.Files` takes them.
        validation: as `train`.
        test: as `train`.
        format: null goes by the ending.
        text: the column of the texts.
        label: the column of the labels, words or whole numbers.
    """

    train: str | Sequence[str]
    validation: str | Sequence[str] | None = None
    test: str | Sequence[str] | None = None
    format: Format | None = None
    text: str = "text"
    label: str = "label"

    @property
    def files(self) -> Files:
        """The tables."""
        return Files(self.train, self.validation, self.test, self.format)

    def load(self) -> dict[Split, list[LabelledText]]:
        """See LabelledSource."""
        return {split: self.rows(split, dataset) for split, dataset in self.files.datasets().items()}

    def rows(self, split: Split, dataset: Any) -> list[LabelledText]:
        """The rows of a table."""
        texts = pick_column("LabelTable", split, dataset, self.text)
        if self.label not in dataset.column_names:
            raise ValueError(
                f"LabelTable: {split} has no column {self.label!r}: set label to one of {dataset.column_names}, for a label of"
                " each text"
            )
        rows = zip(texts, dataset[self.label], strict=True)
        return [checked(text, label, f"row {number} of {split}") for number, (text, label) in enumerate(rows, start=1)]

    def describe(self) -> dict[str, Any]:
        """Includes size and time of local files."""
        return {**super().describe(), "files": self.files.describe()["files"]}


@dataclass(frozen=True)
class LabelFolders(LabelledSource):
    """A folder for each split, with a folder for each label, whose files are a text each; or with a file for each label, whose
    lines are. Files may be gzipped. The name of a folder, or that of a file up to its first dot, is the label.

    Args:
        train: path of the folder.
        validation: as `train`.
        test: as `train`.
        labels: which of them to read; null for all.
    """

    train: str
    validation: str | None = None
    test: str | None = None
    labels: Sequence[str] | None = None

    @property
    def folders(self) -> dict[Split, Path]:
        """The folder of each split."""
        given: dict[Split, str | None] = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: Path(name).expanduser() for split, name in given.items() if name}

    def load(self) -> dict[Split, list[LabelledText]]:
        """See LabelledSource."""
        return {split: list(self.texts(folder)) for split, folder in self.folders.items()}

    def texts(self, folder: Path) -> Iterator[LabelledText]:
        """The texts of a folder, label by label."""
        for path in self.entries(folder):
            label = path.name.partition(".")[0]
            if path.is_dir():
                for file in sorted(path.iterdir()):
                    yield checked(contents(file), label, str(file))
            else:
                for number, line in enumerate(contents(path).removesuffix("\n").split("\n"), start=1):
                    yield checked(line, label, f"line {number} of {path}")

    def entries(self, folder: Path) -> list[Path]:
        """The file or folder of each label.

        Raises:
            FileNotFoundError, ValueError: if there is no such folder, or a label is not in it.
        """
        if not folder.is_dir():
            raise FileNotFoundError(f"LabelFolders: there is no folder {folder}: it holds a folder or a file for each label")
        found = {path.name.partition(".")[0]: path for path in sorted(folder.iterdir()) if not path.name.startswith(".")}
        wanted = list(found) if self.labels is None else list(self.labels)
        if missing := [label for label in wanted if label not in found]:
            raise ValueError(f"LabelFolders: {folder} has no {missing[0]}: choose labels among {list(found)}")
        return [found[label] for label in wanted]

    def describe(self) -> dict[str, Any]:
        """Includes size and time of every file."""
        files = [file for folder in self.folders.values() for file in sorted(folder.rglob("*")) if file.is_file()]
        stamps = {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}
        return {**super().describe(), "files": stamps}


def checked(text: str, label: Any, place: str) -> LabelledText:
    """A text with its label.

    Raises:
        ValueError: if one of the two is missing.
    """
    if not text.strip():
        raise ValueError(f"texts: {place} is empty, and nothing can be read out of it: drop it or fill it")
    if label is None or not str(label).strip():
        raise ValueError(f"texts: {place} has no label: drop it or label it")
    return LabelledText(text.strip(), str(label).strip())


def contents(path: Path) -> str:
    """The text of a file, gzipped or not.

    Raises:
        ValueError: if it is not UTF-8, or no gzip file.
    """
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return data.decode("utf-8-sig")
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, IsADirectoryError) as error:
        raise ValueError(f"texts: {path} does not read as text ({error}): convert it to UTF-8, or take it away") from error
