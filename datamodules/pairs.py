"""Sentences with their translations, and what every source of them has in common."""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, get_args

from datamodules.holding_out import HoldOut, held_out_rows
from datamodules.sources import Lines, Split, check_fractions, fractions, refuse_empty, refuse_fractions_of


class Pair(NamedTuple):
    """A text and its translation."""

    source: str
    target: str


class Pairs:
    """Texts with their translations, iterable again and again.

    Args:
        source: texts to translate.
        target: the translation of each.
        references: further translations, to score others by: each has a line for every pair, empty where that pair has none.
        gaps: numbers of the pairs that are not among these, because one of their sides is empty; rising, and counted with them.
    """

    def __init__(self, source: Lines, target: Lines, references: Sequence[Lines] = (), gaps: Sequence[int] = ()) -> None:
        self.source = source
        self.target = target
        self.references = references
        self.gaps = gaps

    @classmethod
    def of(cls, pairs: Sequence[tuple[str, str]]) -> "Pairs":
        """Pairs that are in memory."""
        from datasets import Dataset

        sides = Dataset.from_dict({"source": [source for source, _ in pairs], "target": [target for _, target in pairs]})
        return cls(Lines(sides.select_columns(["source"]), "source"), Lines(sides.select_columns(["target"]), "target"))

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[Pair]:
        return map(Pair, self.source, self.target)

    def select(self, rows: Sequence[int], gaps: Sequence[int] = ()) -> "Pairs":
        """The pairs of these rows, in this order."""
        references = [lines.select(rows) for lines in self.references]
        return Pairs(self.source.select(rows), self.target.select(rows), references, gaps)

    def without_gaps(self) -> "Pairs":
        """The pairs that have something on both sides; the others are its gaps."""
        gaps = [row for row, pair in enumerate(self) if not (pair.source.strip() and pair.target.strip())]
        missing = set(gaps)
        return self.select([row for row in range(len(self)) if row not in missing], gaps) if gaps else self


@dataclass(frozen=True, kw_only=True)
class PairSource(ABC):
    """Pairs, already split; YAML names a source by its class path.

    Args:
        validation_fraction: hold out this share of the training pairs, in place of a split.
        test_fraction: the same for testing.
        hold_out: which pairs: "end" the last ones, those to test very last; "random" any; "groups" any too, but all that are
            joined by an equal source or target stay together, so that no sentence is seen in training and asked for again.
        hold_out_seed: of the random ways.
        max_pairs: read only so many pairs of the training split, the first, before any is held out; null reads all.
    """

    validation_fraction: float = 0.0
    test_fraction: float = 0.0
    hold_out: HoldOut = "end"
    hold_out_seed: int = 0
    max_pairs: int | None = None

    def __post_init__(self) -> None:
        check_fractions(self)
        if self.max_pairs is not None and self.max_pairs < 1:
            raise ValueError(f"{type(self).__name__}: max_pairs is 1 or more, or null for all, got {self.max_pairs}")
        if self.hold_out not in get_args(HoldOut):
            raise ValueError(
                f"{type(self).__name__}: pairs are not held out by {self.hold_out!r}: choose one of {list(get_args(HoldOut))}"
            )

    @abstractmethod
    def load(self) -> dict[Split, Pairs]:
        """The pairs of the splits that there are: train at least. Raises as `splits`."""

    def splits(self) -> dict[Split, Pairs]:
        """The pairs of "train", and of "validation" and "test" where there are such; every side of a pair has a text.

        Raises:
            FileNotFoundError: for a missing file.
            ValueError: for data that are not what the settings say, and for a split that is empty.
        """
        name = type(self).__name__
        loaded = self.load()
        refuse_fractions_of(self, loaded)
        if self.max_pairs is not None:
            train = loaded["train"]
            loaded["train"] = train.select(range(min(self.max_pairs, len(train))))
        found = {split: refuse_empty_side(name, split, pairs).without_gaps() for split, pairs in loaded.items()}
        pairs, shares = found["train"], fractions(self)
        if any(shares.values()):
            rows = held_out_rows(pairs, shares["validation"], shares["test"], self.hold_out, self.hold_out_seed)
            found["train"] = pairs.select(rows["train"], pairs.gaps)
            found |= {split: pairs.select(rows[split]) for split, share in shares.items() if share}
        refuse_empty(name, found)
        return found

    def describe(self) -> dict[str, Any]:
        """What decides the pairs, in types that JSON has: the key of a cache."""
        return {"class": type(self).__name__, **json.loads(json.dumps(asdict(self)))}


def refuse_empty_side(owner: str, split: str, pairs: Pairs) -> Pairs:
    """The pairs, unless one side has no text in any of them."""
    for side in ("source", "target"):
        if len(pairs) and not any(text.strip() for text in getattr(pairs, side)):
            raise ValueError(
                f"{owner}: the {side} side of {split} is empty in all of its {len(pairs)} pairs: check the file or column of it"
            )
    return pairs
