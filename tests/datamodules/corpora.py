"""Corpora for tests: pairs that a test writes itself, and real ones where they are."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from datamodules.pairs import Pairs, PairSource
from datamodules.sources import Split


def corpus(*parts: str) -> Path:
    """A file of the real corpora that the project does not ship; the test is skipped where it is not."""
    path = Path(os.environ.get("UNROLL_DATA", Path(__file__).parents[2].parent / "shared" / "data"), *parts)
    if not path.exists():
        pytest.skip(f"{path} is not here: set UNROLL_DATA to a folder that has {'/'.join(parts)}")
    return path


@dataclass(frozen=True)
class GivenPairs(PairSource):
    """Pairs that a test writes itself."""

    train: Sequence[tuple[str, str]]
    validation: Sequence[tuple[str, str]] = ()
    test: Sequence[tuple[str, str]] = ()

    def load(self) -> dict[Split, Pairs]:
        given: dict[Split, Sequence[tuple[str, str]]] = {"train": self.train, "validation": self.validation, "test": self.test}
        return {split: Pairs.of(pairs) for split, pairs in given.items() if pairs}
