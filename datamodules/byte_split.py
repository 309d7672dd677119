"""One file cut by the byte, as corpora for compression are."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from datamodules.fetching import fetch
from datamodules.sources import Source, Split, Texts, stamps


@dataclass(frozen=True)
class ByteSplit(Source):
    """The first bytes of a file to train on, then those to develop on, then those to test on; its line ends are part of the text.

    enwik8 has 90, 5 and 5 million by custom. For `line_end: null`, since a line brings its own. A cut within a character moves
    behind it.

    Args:
        file: path or URL, as `datamodules.sources.Files` takes one, of text in UTF-8.
        train: bytes to train on.
        validation: bytes behind them; 0 for none.
        test: bytes behind these; 0 for none.

    Raises:
        ValueError: if a count is negative, or there is nothing to train on; in `splits`, if the file is shorter or no UTF-8.
    """

    file: str
    train: int
    validation: int = 0
    test: int = 0

    def __post_init__(self) -> None:
        if self.train < 1 or self.validation < 0 or self.test < 0:
            raise ValueError(
                f"ByteSplit: splits are counts of bytes, of which train has some, got train={self.train},"
                f" validation={self.validation}, test={self.test}"
            )

    def describe(self) -> dict[str, Any]:
        """Includes size and time of a local file."""
        return {"source": "ByteSplit", **asdict(self), "files": stamps({"train": [self.file]})}

    def splits(self) -> dict[Split, Texts]:
        """See Source; raises FileNotFoundError too."""
        content = fetch("train", self.file).read_bytes()
        sizes: dict[Split, int] = {"train": self.train, "validation": self.validation, "test": self.test}
        if len(content) < (needed := sum(sizes.values())):
            raise ValueError(
                f"ByteSplit: {self.file} has {len(content):,} bytes, fewer than the {needed:,} of the splits together"
            )
        held: dict[Split, Texts] = {}
        begin = cut = 0
        for split, size in sizes.items():
            cut += size
            end = character_boundary(content, cut)
            if size:
                held[split] = Lines(content[begin:end], self.file)
            begin = end
        return held


class Lines:
    """Lines of encoded text with their ends, decoded one by one.

    Args:
        content: the text.
        name: of its file.
    """

    def __init__(self, content: bytes, name: str) -> None:
        self.content = content
        self.name = name

    def __len__(self) -> int:
        return self.content.count(b"\n") + (not self.content.endswith(b"\n"))

    def __iter__(self) -> Iterator[str]:
        begin = 0
        while begin < len(self.content):
            end = self.content.find(b"\n", begin) + 1 or len(self.content)
            try:
                yield self.content[begin:end].decode()
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"ByteSplit: {self.name} is no UTF-8 at byte {begin + error.start:,} of a split ({error.reason})"
                ) from error
            begin = end


def character_boundary(content: bytes, place: int) -> int:
    """The first byte from a place on that begins a character of UTF-8, or the end."""
    while place < len(content) and content[place] & 0b1100_0000 == 0b1000_0000:
        place += 1
    return place
