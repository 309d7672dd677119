"""A tokenised corpus on disk: one memory-mapped array a split, made once and opened in no time."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.cache import cached
from datamodules.ragged import open_array
from datamodules.recipes import TokenizerRecipe
from datamodules.sources import Source
from datamodules.tokenizers import Tokenizer

LINES_AT_ONCE = 1000


class Corpus:
    """The tokens of a source's splits, cached under what made them.

    Args:
        source: of the lines.
        recipe: of the tokenizer, trained on the training split alone.
        line_end: token after each line; None joins lines with nothing between them.
        cache: folder that holds corpora; each gets a folder of its own in it.

    Attributes:
        tokenizer: trained, or read from the cache.
        arrays: memory-mapped ids of each split.
    """

    def __init__(self, source: Source, recipe: TokenizerRecipe, line_end: str | None, cache: Path) -> None:
        description = {"source": source.describe(), "tokenizer": recipe.describe(), "line_end": line_end, "format": 1}
        folder, facts = cached(cache, description, partial(build, source, recipe, line_end))
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.arrays = {split: open_array(folder / f"{split}.ids", facts["dtype"]) for split in facts["splits"]}


def build(source: Source, recipe: TokenizerRecipe, line_end: str | None, folder: Path) -> dict[str, Any]:
    """Train the tokenizer, write every split, and tell what they are."""
    splits = source.splits()
    tokenizer = recipe.train(splits["train"])
    end = [] if line_end is None else [tokenizer.id_of(line_end)]
    dtype = dtype_of(tokenizer)
    for split, lines in splits.items():
        with (folder / f"{split}.ids").open("wb") as file:
            for ids in encode(lines, tokenizer, dropout=split == "train"):
                np.asarray(ids + end, dtype=dtype).tofile(file)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    return {"splits": list(splits), "dtype": dtype}


def dtype_of(tokenizer: Tokenizer) -> str:
    """The smallest type that holds every id."""
    return "uint16" if len(tokenizer) <= 2**16 else "int32"


def encode(lines: Iterable[str], tokenizer: Tokenizer, *, dropout: bool) -> Iterator[list[int]]:
    """The ids of each line, in batches that the tokenizer encodes in parallel."""
    remaining = iter(lines)
    while batch := list(islice(remaining, LINES_AT_ONCE)):
        yield from tokenizer.encode_batch(batch, dropout=dropout)
