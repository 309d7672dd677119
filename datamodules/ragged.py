"""Sequences of different lengths on disk: one flat memory-mapped array, and where each begins."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Self

import numpy as np


class Ragged:
    """Sequences of different lengths, one after another.

    Args:
        values: `(total,)` elements of all sequences.
        offsets: `(count + 1,)`: sequence i is values[offsets[i] : offsets[i + 1]].
    """

    def __init__(self, values: np.ndarray, offsets: np.ndarray) -> None:
        self.values = values
        self.offsets = offsets

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no sequence {index} of {len(self)}")
        return self.values[self.offsets[index] : self.offsets[index + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    @property
    def lengths(self) -> np.ndarray:
        """`(count,)` elements of each sequence."""
        return np.diff(self.offsets)

    @classmethod
    def open(cls, path: Path, dtype: str) -> Self:
        """What `write` wrote, read from disk where it is used."""
        return cls(open_array(values_of(path), dtype), open_array(offsets_of(path), "int64"))

    @staticmethod
    def write(path: Path, sequences: Iterable[Sequence[int] | bytes], dtype: str) -> None:
        """Write sequences as they come; `path` is the beginning of the names of two files."""
        offsets = [0]
        with values_of(path).open("wb") as file:
            for sequence in sequences:
                file.write(np.asarray(bytearray(sequence) if isinstance(sequence, bytes) else sequence, dtype=dtype).tobytes())
                offsets.append(offsets[-1] + len(sequence))
        np.asarray(offsets, dtype=np.int64).tofile(offsets_of(path))


def values_of(path: Path) -> Path:
    """The file of the elements."""
    return path.with_name(f"{path.name}.values")


def offsets_of(path: Path) -> Path:
    """The file of the beginnings."""
    return path.with_name(f"{path.name}.offsets")


def open_array(path: Path, dtype: str) -> np.ndarray:
    """The elements of a file, read where they are used; an empty file cannot be mapped, and needs not be."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
