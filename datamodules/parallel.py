"""Where pairs come from: a file for each side, tables, and the Hugging Face hub."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from datamodules.fetching import Format
from datamodules.pairs import Pairs, PairSource
from datamodules.sources import Files, Hub, Lines, Split, pick_column, stamps

FileNames = str | Sequence[str]
"""A path or URL, or several in order, as `datamodules.sources.Files` takes them."""


@dataclass(frozen=True)
class ParallelFiles(PairSource):
    """Two text files for each split: line n of one translates line n of the other.

    Args:
        source: the file or files of each split, as `datamodules.sources.Files` takes them.
        target: the same for the other language.
        references: for validation or test, files of further translations, which scores take beside the target: line n of each
            is one more of line n, or empty where there is no more.
    """

    source: dict[Split, FileNames]
    target: dict[Split, FileNames]
    references: dict[Split, FileNames] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if set(self.source) != set(self.target):
            raise ValueError(
                f"ParallelFiles: the source has files for {list(self.source)}, the target for {list(self.target)}:"
                " give both sides of each split"
            )
        scored = [split for split in self.source if split != "train"]
        if unscored := [split for split in self.references or () if split not in scored]:
            raise ValueError(
                f"ParallelFiles: there are references for {unscored}, and the splits to score translations on that have files"
                f" are {scored}: give references for these alone"
            )
        _ = self.sides

    @property
    def sides(self) -> tuple[Files, Files]:
        """The files of source and target."""
        source, target = (text_files(**{"train": [], **names}) for names in (self.source, self.target))
        return source, target

    def describe(self) -> dict[str, Any]:
        """Includes size and time of local files."""
        names = [*(side.names for side in self.sides), {split: self.reference_names(split) for split in self.source}]
        return {**super().describe(), "files": [stamps(given) for given in names]}

    def reference_names(self, split: Split) -> list[str]:
        """The files of further references, as given."""
        given = (self.references or {}).get(split, [])
        return [given] if isinstance(given, str) else list(given)

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Refuses files of different lengths."""
        return {split: self.pairs(split) for split in self.source}

    def pairs(self, split: Split) -> Pairs:
        """The pairs of a split, with all their references."""
        sources, targets = self.sides
        source = lines_of(sources, split, sources.names[split])
        translations = []
        for names in (targets.names[split], *([name] for name in self.reference_names(split))):
            lines = lines_of(targets, split, names)
            if len(source) != len(lines):
                raise ValueError(
                    f"ParallelFiles: {' + '.join(sources.names[split])} has {len(source)} lines and"
                    f" {' + '.join(names)} has {len(lines)}: line n of one has to translate line n of the other"
                )
            translations.append(lines)
        target, *references = translations
        return Pairs(source, target, references=references)


@dataclass(frozen=True)
class TabSeparated(PairSource):
    """Lines of columns with tabs between them, no header and no quotes: Tatoeba and Anki. Empty lines are dropped and counted.

    Args:
        train: as `datamodules.sources.Files` takes it.
        validation: as `train`.
        test: as `train`.
        source_column: which column holds the source, counted from 1.
        target_column: which the target; other columns, such as an attribution, are ignored.
    """

    train: FileNames
    validation: FileNames | None = None
    test: FileNames | None = None
    source_column: int = 1
    target_column: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        if min(self.columns) < 1 or self.source_column == self.target_column:
            raise ValueError(f"TabSeparated: the columns are two, counted from 1, got {list(self.columns)}")
        _ = self.files

    @property
    def columns(self) -> tuple[int, int]:
        """Those of source and target."""
        return self.source_column, self.target_column

    @property
    def files(self) -> Files:
        """The files as lines."""
        return text_files(self.train, self.validation, self.test)

    def describe(self) -> dict[str, Any]:
        """Includes size and time of local files."""
        return {**super().describe(), "files": self.files.describe()["files"]}

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Refuses a line that has too few columns."""
        files = self.files
        return {split: self.parse(" + ".join(names), lines_of(files, split, names)) for split, names in files.names.items()}

    def parse(self, name: str, lines: Iterable[str]) -> Pairs:
        """The pairs of lines that are called by a name in messages."""
        pairs: list[tuple[str, str]] = []
        for number, line in enumerate(lines, start=1):
            cells = line.split("\t") if line.strip() else [""] * max(self.columns)  # an empty pair keeps the place of its line
            if len(cells) < max(self.columns):
                raise ValueError(
                    f"TabSeparated: line {number} of {name} has no column {max(self.columns)}, where tabs stand between columns,"
                    f" and reads {line[:60]!r}: correct it, or choose other columns than {list(self.columns)}"
                )
            pairs.append((cells[self.source_column - 1], cells[self.target_column - 1]))
        return Pairs.of(pairs)


@dataclass(frozen=True)
class PairTables(PairSource):
    """CSV, TSV, JSON or Parquet files with the two sides in two columns.

    Args:
        train: as `datamodules.sources.Files` takes it.
        validation: as `train`.
        test: as `train`.
        source: a column, or a language in a column `translation` of {language: text}.
        target: the same for the other side.
        format: null goes by the ending.
    """

    train: FileNames
    validation: FileNames | None = None
    test: FileNames | None = None
    source: str = "source"
    target: str = "target"
    format: Format | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.files

    @property
    def files(self) -> Files:
        """The files with all their columns."""
        return Files(self.train, self.validation, self.test, self.format)

    def describe(self) -> dict[str, Any]:
        """Includes size and time of local files."""
        return {**super().describe(), "files": self.files.describe()["files"]}

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Refuses tables without the columns."""
        return {split: pick_pair(self, split, dataset) for split, dataset in self.files.datasets().items()}


@dataclass(frozen=True)
class HubPairs(PairSource):
    """A dataset of the Hugging Face hub with the two sides in two columns, or in one as OPUS, TED and IWSLT have it.

    Args:
        name: such as `bentrevett/multi30k`, or a local folder of data files.
        source: a column, or a language in a column `translation` of {language: text}.
        target: the same for the other side.
        config: which of its configurations, where it has several.
        revision: commit, tag or branch; pin it, for a cache does not see the hub change.
        split_names: what it calls our splits, slices such as `train[:10%]` included; null takes those of the usual names.
    """

    name: str
    source: str
    target: str
    config: str | None = None
    revision: str | None = None
    split_names: dict[Split, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.hub

    @property
    def hub(self) -> Hub:
        """The dataset with all its columns."""
        return Hub(self.name, self.config, revision=self.revision, split_names=self.split_names)

    def load(self) -> dict[Split, Pairs]:
        """See PairSource. Raises ValueError where the hub has no such dataset, split or column, or cannot be reached."""
        return {split: pick_pair(self, split, dataset) for split, dataset in self.hub.datasets().items()}


def text_files(train: FileNames, validation: FileNames | None = None, test: FileNames | None = None) -> Files:
    """Files that are text, whatever their names end in."""
    return Files(train, validation, test, format="text")


def lines_of(files: Files, split: Split, names: list[str]) -> Lines:
    """The lines of text files, which are for one split."""
    return pick_column("Files", split, files.load(split, names), "text")


def pick_pair(owner: PairTables | HubPairs, split: Split, dataset: Any) -> Pairs:
    """Two columns of text without gaps, or ValueError."""
    name, flat = type(owner).__name__, dataset.flatten()  # of {language: text} it makes columns `translation.language`
    found = [column if column in flat.column_names else f"translation.{column}" for column in (owner.source, owner.target)]
    for given, column in zip((owner.source, owner.target), found, strict=True):
        if column not in flat.column_names:
            raise ValueError(
                f"{name}: {split} has no column {given!r}, nor that language in a column 'translation':"
                f" choose source and target from {flat.column_names}"
            )
    source, target = (pick_column(name, split, flat, column) for column in found)
    return Pairs(source, target)
