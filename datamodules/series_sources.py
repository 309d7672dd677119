"""Where series of numbers come from: formulas with noise, and columns of tables."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from datamodules.sources import Files


class SeriesSource(ABC):
    """One series of numbers, in the order of time; YAML names a source by its class path.

    Attributes:
        noise_variance: the error that no prediction can fall below in the mean; None where it is not known.
    """

    noise_variance: float | None = None

    @abstractmethod
    def values(self) -> np.ndarray:
        """The series, `(time,)` of float64."""


@dataclass(frozen=True)
class NoisySeries(SeriesSource):
    """A formula of time t = 1, 2, ..., with normal noise added to each value.

    Args:
        length: values.
        noise: standard deviation.
        seed: of the noise.
    """

    length: int = 1000
    noise: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        if self.length < 2 or self.noise < 0:
            raise ValueError(
                f"{type(self).__name__}: a series has 2 values or more, and noise no negative deviation, got"
                f" length={self.length}, noise={self.noise}"
            )

    @property
    def noise_variance(self) -> float:  # type: ignore[override]
        """See SeriesSource."""
        return self.noise**2

    def values(self) -> np.ndarray:
        """See SeriesSource."""
        time = np.arange(1, self.length + 1, dtype=np.float64)
        return self.signal(time) + np.random.default_rng(self.seed).normal(0, self.noise, self.length)

    @abstractmethod
    def signal(self, time: np.ndarray) -> np.ndarray:
        """The values without noise, `(time,)`."""


@dataclass(frozen=True)
class NoisySine(NoisySeries):
    """sin(frequency · t) + noise.

    Args:
        frequency: radians from one value to the next.
    """

    frequency: float = 0.01

    def signal(self, time: np.ndarray) -> np.ndarray:
        """See NoisySeries."""
        return np.sin(self.frequency * time)


@dataclass(frozen=True)
class NoisyTrend(NoisySeries):
    """slope · t + noise.

    Args:
        slope: from one value to the next.
    """

    length: int = 100
    slope: float = 0.01

    def signal(self, time: np.ndarray) -> np.ndarray:
        """See NoisySeries."""
        return self.slope * time


@dataclass(frozen=True)
class Column(SeriesSource):
    """A column of a table, from its first row to its last.

    Args:
        file: CSV, TSV, JSON or Parquet, path or URL, as `datamodules.sources.Files` takes one.
        column: its name.
    """

    file: str
    column: str

    def values(self) -> np.ndarray:
        """See SeriesSource.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if it is no table, has no such column, or the column holds something else than numbers.
        """
        table = Files(self.file).datasets()["train"]
        if self.column not in table.column_names:
            raise ValueError(f"Column: {self.file} has no column {self.column!r}, but {table.column_names}: name one of these")
        return np.fromiter(self.numbers(table[self.column]), dtype=np.float64)

    def numbers(self, cells: Any) -> Iterator[float]:
        """Each cell as a number."""
        for row, cell in enumerate(cells, start=1):
            try:
                number = float(cell)
            except (TypeError, ValueError):
                number = float("nan")
            if not isfinite(number):
                raise ValueError(
                    f"Column: row {row} of {self.column!r} in {self.file} is {cell!r}, and no number: choose a column of numbers,"
                    " or fill the gap"
                )
            yield number
