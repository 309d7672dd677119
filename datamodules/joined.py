"""Several corpora as one."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from datamodules.sources import SPLITS, Source, Split, Texts


@dataclass(frozen=True)
class Joined(Source):
    """The texts of several sources, split by split, one source after the other.

    Args:
        sources: of the texts, in this order; a split that only some have is that of these.

    Raises:
        ValueError: if there is none.
    """

    sources: Sequence[Source]

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("Joined: it has no sources to join; name one or more")

    def splits(self) -> dict[Split, Texts]:
        """Raises as the sources do."""
        found = [source.splits() for source in self.sources]
        named = {split: [splits[split] for splits in found if split in splits] for split in SPLITS}
        return {split: list(chain.from_iterable(texts)) for split, texts in named.items() if texts}

    def describe(self) -> dict[str, Any]:
        """See Source."""
        return {"source": "Joined", "sources": [source.describe() for source in self.sources]}
