"""Where lines of text come from: files, and the Hugging Face hub."""

import glob
import pickle
from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterator, Mapping, Sequence, Sized
from dataclasses import asdict, dataclass
from fractions import Fraction
from math import floor
from typing import Any, Literal, Protocol, TypeVar

from datamodules.fetching import Format, fetch, is_full_disk, local, locate, reason

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
# What `datasets` has to be told: "NA" and an empty cell are text, and a TSV has no quotes.
OPTIONS: dict[Format, tuple[str, dict[str, Any]]] = {
    "text": ("text", {}),
    "csv": ("csv", {"keep_default_na": False}),
    "tsv": ("csv", {"keep_default_na": False, "sep": "\t", "quoting": 3}),
    "json": ("json", {}),
    "parquet": ("parquet", {}),
}
ROWS_A_BLOCK = 100_000
"""How many rows of a dataset are written at once at most, and mapped at once."""


class Texts(Protocol):
    """Lines or documents without their line ends; iterable again and again."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[str]: ...


SizedTexts = TypeVar("SizedTexts", bound=Sized)


class Source(ABC):
    """Texts, already split; YAML names a source by its class path."""

    @abstractmethod
    def splits(self) -> dict[Split, Texts]:
        """The texts of "train", and of "validation" and "test" where there are such. None of them is empty."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What decides the texts, in types that JSON has: the key of a cache."""


@dataclass(frozen=True)
class Files(Source):
    """Text, CSV, TSV, JSON or Parquet files, compressed by gzip or not. A line of a text file is a text, blank ones included.

    Args:
        train: path, http(s) URL, or several in order; a URL may end in `#sha1=...` or `#sha256=...`, the checksum of its file.
            `zip://FILE::ARCHIVE` is a file of a zip archive, which is a path or URL in turn.
        validation: as `train`.
        test: as `train`.
        format: null goes by the ending, and takes an unknown one for text.
        column: of tables: which one holds the text.
        validation_fraction: hold out this share of the training texts, from the end of `train`, in place of a file.
        test_fraction: the same for testing; these are the very last texts.
    """

    train: str | Sequence[str]
    validation: str | Sequence[str] | None = None
    test: str | Sequence[str] | None = None
    format: Format | None = None
    column: str = "text"
    validation_fraction: float = 0.0
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(self)
        if "train" not in self.names:
            raise ValueError(f"Files: there is nothing to train on in train={self.train!r}: name a file")
        refuse_fractions_of(self, self.names)
        for name in (name for names in self.names.values() for name in names):
            locate(name)

    @property
    def names(self) -> dict[Split, list[str]]:
        """Paths and URLs of each split, as given."""
        given: dict[Split, str | Sequence[str] | None] = {
            "train": self.train,
            "validation": self.validation,
            "test": self.test,
        }
        return {split: [names] if isinstance(names, str) else list(names) for split, names in given.items() if names}

    def describe(self) -> dict[str, Any]:
        """Includes size and time of local files. Raises FileNotFoundError for a missing one."""
        return {"source": "Files", **asdict(self), "files": stamps(self.names)}

    def splits(self) -> dict[Split, Texts]:
        """Raises FileNotFoundError for a missing file, ValueError for one that is not what the settings say."""
        held = {split: pick_column("Files", split, dataset, self.column) for split, dataset in self.datasets().items()}
        return cut("Files", held, self.validation_fraction, self.test_fraction)

    def datasets(self) -> dict[Split, Any]:
        """A `datasets.Dataset` with all columns for each split that has files. Raises as `splits`."""
        return {split: self.load(split, names) for split, names in self.names.items()}

    def load(self, split: Split, names: list[str]) -> Any:
        """One split: fetched, verified and parsed."""
        from datasets import load_dataset

        formats = {self.format or locate(name).format for name in names}
        if len(formats) > 1:
            raise ValueError(f"Files: {split} mixes {sorted(formats)}: give files of one format")
        paths = [fetch(split, name) for name in names]
        builder, options = OPTIONS[formats.pop()]
        try:
            # A path is no pattern, whatever brackets its name has.
            return load_dataset(
                builder,
                data_files=[glob.escape(str(path)) for path in paths],
                split="train",
                writer_batch_size=ROWS_A_BLOCK,
                **options,
            )
        except Exception as error:
            refuse_full_disk(error)
            raise ValueError(
                f"Files: no texts come out of {split} ({', '.join(names)}) read as {builder} ({reason(error)}): "
                "check that it is not empty, and set format if it is another"
            ) from error


@dataclass(frozen=True)
class Hub(Source):
    """A dataset of the Hugging Face hub.

    Args:
        name: such as `Salesforce/wikitext`, or a local folder of data files.
        config: which of its configurations, where it has several.
        column: which column holds the text.
        revision: commit, tag or branch; pin it, for a cache does not see the hub change.
        split_names: what it calls our splits, slices such as `train[:10%]` included; null takes those of the usual names.
        validation_fraction: hold out this share of the training texts, from their end, in place of a split.
        test_fraction: the same for testing; these are the very last texts.
    """

    name: str
    config: str | None = None
    column: str = "text"
    revision: str | None = None
    split_names: dict[Split, str] | None = None
    validation_fraction: float = 0.0
    test_fraction: float = 0.0

    def __post_init__(self) -> None:
        check_fractions(self)
        if self.split_names is not None and ("train" not in self.split_names or not set(SPLITS).issuperset(self.split_names)):
            raise ValueError(f"Hub: split_names maps {list(SPLITS)} to names on the hub, train at least, got {self.split_names}")

    def describe(self) -> dict[str, Any]:
        """The settings alone: see `revision`."""
        return {"source": "Hub", **asdict(self)}

    def splits(self) -> dict[Split, Texts]:
        """Raises ValueError where the hub has no such dataset, split or column, or cannot be reached."""
        held = {split: pick_column("Hub", split, dataset, self.column) for split, dataset in self.datasets().items()}
        refuse_fractions_of(self, held)
        return cut("Hub", held, self.validation_fraction, self.test_fraction)

    def datasets(self) -> dict[Split, Any]:
        """A `datasets.Dataset` with all columns for each of our splits that is there. Raises as `splits`."""
        from datasets import load_dataset

        def load(split: str | None) -> Any:
            return load_dataset(self.name, self.config, split=split, revision=self.revision, writer_batch_size=ROWS_A_BLOCK)

        try:
            found = load(None) if self.split_names is None else {split: load(name) for split, name in self.split_names.items()}
        except Exception as error:
            refuse_full_disk(error)
            raise ValueError(
                f"Hub: {self.name} does not load with config={self.config!r}, revision={self.revision!r} ({reason(error)}): "
                "check the settings and the network, or give Files a local copy"
            ) from error
        if "train" not in found:
            raise ValueError(f"Hub: {self.name} has no split train, but {list(found)}: say in split_names which to train on")
        return {split: found[split] for split in SPLITS if split in found}


class Lines:
    """One column of a dataset, read from disk as it is iterated over.

    Args:
        dataset: a `datasets.Dataset`.
        column: the name of a column of strings.
    """

    def __init__(self, dataset: Any, column: str) -> None:
        self.dataset = dataset
        self.column = column

    def __len__(self) -> int:
        return len(self.dataset)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), ROWS_A_BLOCK):
            block = mapped_anew(self.dataset.select(range(start, min(start + ROWS_A_BLOCK, len(self)))))
            for batch in block.iter(batch_size=1000):
                for text in batch[self.column]:
                    yield text.removeprefix("\ufeff").rstrip("\r\n")  # the mark that some editors begin a file with

    def select(self, rows: Sequence[int]) -> "Lines":
        """The texts of these rows, in this order."""
        return Lines(self.dataset.select(rows), self.column)


def mapped_anew(dataset: Any) -> Any:
    """The same rows, in a mapping of their own where they are in files: what is read of one counts as memory until it goes."""
    return pickle.loads(pickle.dumps(dataset)) if dataset.cache_files else dataset


def pick_column(owner: str, split: Split, dataset: Any, column: str) -> Lines:
    """A column of text without gaps, or ValueError."""
    if column not in dataset.column_names:
        raise ValueError(f"{owner}: {split} has no column {column!r}: set column to one of {dataset.column_names}")
    kind = getattr(dataset.features[column], "dtype", "nested")
    if kind not in ("string", "large_string"):
        raise ValueError(
            f"{owner}: column {column!r} of {split} holds {kind}, not text: choose another of {dataset.column_names}"
        )
    gaps = dataset.data.column(column).null_count
    if gaps:
        raise ValueError(
            f"{owner}: {gaps} of {len(dataset)} rows of {split} have nothing in column {column!r}: fill or drop them"
        )
    return Lines(dataset.select_columns([column]), column)


def cut(owner: str, splits: dict[Split, Lines], validation_fraction: float, test_fraction: float) -> dict[Split, Texts]:
    """Hold out the end of the training texts: floor((1 − v − t)·n) stay, the last ones test."""
    total = len(splits["train"])
    stop, end = ends(total, validation_fraction, test_fraction)
    parts: dict[Split, Texts] = {**splits, "train": splits["train"].select(range(stop))}
    if validation_fraction:
        parts["validation"] = splits["train"].select(range(stop, end))
    if test_fraction:
        parts["test"] = splits["train"].select(range(end, total))
    return refuse_empty(owner, parts)


def ends(total: int, validation_fraction: float, test_fraction: float) -> tuple[int, int]:
    """Where of so many texts the training ends, and where the validation."""
    stop = floor((1 - exact(validation_fraction) - exact(test_fraction)) * total)
    return stop, floor((1 - exact(test_fraction)) * total)


def refuse_empty(owner: str, splits: dict[Split, SizedTexts]) -> dict[Split, SizedTexts]:
    """The splits, unless one has no text."""
    for split, texts in splits.items():
        if not len(texts):
            sizes = {name: len(found) for name, found in splits.items()}
            raise ValueError(f"{owner}: {split} has no texts, of {sizes}: give more text, or change the fractions")
    return splits


def fractions(source: Any) -> dict[Split, float]:
    """What a source is to hold out, by split."""
    return {"validation": source.validation_fraction, "test": getattr(source, "test_fraction", 0.0)}


def refuse_fractions_of(source: Any, given: Container[Split]) -> None:
    """Raise ValueError if a split is given, and a fraction for it too."""
    for split, fraction in fractions(source).items():
        if fraction and split in given:
            raise ValueError(
                f"{type(source).__name__}: it has a {split} split and {split}_fraction={fraction}: leave one of them out"
            )


def check_fractions(source: Any) -> None:
    """Raise ValueError unless something is left to train on."""
    shares = list(fractions(source).values())
    if min(shares) < 0 or sum(shares) >= 1:
        raise ValueError(f"{type(source).__name__}: held-out fractions are 0 or more and below 1 together, got {shares}")


def split_to_predict(chosen: Split | None, splits: Collection[Split]) -> Split | None:
    """The split that `predict` reads: the one chosen, or that to test, or that to validate; None where there is none of these.

    Raises:
        ValueError: if the one chosen is not there.
    """
    if chosen is not None and chosen not in splits:
        raise ValueError(f"predict_split: there is no {chosen} split, but {list(splits)}: choose one of these, or leave it out")
    held_out: tuple[Split, ...] = ("test", "validation")
    return chosen or next((split for split in held_out if split in splits), None)


def refuse_full_disk(error: Exception) -> None:
    """Raise OSError if that is what kept `datasets` from writing its copy of the texts."""
    from datasets import config

    if is_full_disk(error):
        raise OSError(
            f"texts: the disk of {config.HF_DATASETS_CACHE} is full: make room, or set HF_DATASETS_CACHE to a folder on another"
        ) from error


def exact(fraction: float) -> Fraction:
    """The decimal a person wrote: 1 − 0.05 − 0.05 is 0.9, not 0.8999..., which would lose a line."""
    return Fraction(str(fraction))


def stamps(names: Mapping[Split, Sequence[str]]) -> dict[str, list[int]]:
    """Size and time of each local file, so that a change is noticed. Raises FileNotFoundError for a missing one."""
    places = {name: (split, locate(name)) for split in names for name in names[split]}
    stats = {name: local(split, place).stat() for name, (split, place) in places.items() if not place.is_url}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}
