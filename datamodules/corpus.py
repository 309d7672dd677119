"""A tokenised corpus on disk: one memory-mapped array a split, made once and opened in no time."""

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.cache import cached, write_whole
from datamodules.ragged import open_array
from datamodules.recipes import TokenizerRecipe
from datamodules.sources import Source, Texts
from datamodules.token_file import batches, progress, write_tokens
from datamodules.tokenizers import Tokenizer

LETTERS_AT_ONCE = 2**18


class Corpus:
    """The tokens of a source's splits, cached under what made them.

    Neither text nor tokens need to fit memory, and making them goes on where it was interrupted. The tokenizer counts the
    different words of the training text in memory; a text is encoded as a whole, however long it is.

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
        description = {"source": source.describe(), "tokenizer": recipe.describe(), "line_end": line_end, "format": 2}
        folder, facts = cached(cache, description, partial(build, source, recipe, line_end))
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.arrays = {split: open_array(folder / f"{split}.ids", facts["dtype"]) for split in facts["splits"]}


def build(source: Source, recipe: TokenizerRecipe, line_end: str | None, folder: Path) -> dict[str, Any]:
    """Train the tokenizer and write every split, as far as they are not there, and tell what they are."""
    splits = source.splits()
    tokenizer = trained(recipe, splits["train"], folder / "tokenizer.json")
    end = [] if line_end is None else [tokenizer.id_of(line_end)]
    dtype = dtype_of(tokenizer)

    def ids(lines: list[str], *, dropout: bool) -> np.ndarray:
        return np.fromiter(chain.from_iterable(line + end for line in encode(lines, tokenizer, dropout=dropout)), dtype)

    for split, lines in splits.items():
        write_tokens(folder / f"{split}.ids", lines, partial(ids, dropout=split == "train"))
    return {"splits": list(splits), "dtype": dtype}


def trained(recipe: TokenizerRecipe, texts: Texts, path: Path) -> Tokenizer:
    """The tokenizer in a file, which is trained first unless it is there."""
    if not path.exists():
        write_whole(path, recipe.train(progress("Training the tokenizer", texts)).to_json())
    return Tokenizer.from_json(path.read_text(encoding="utf-8"))


def dtype_of(tokenizer: Tokenizer) -> str:
    """The smallest type that holds every id."""
    return np.min_scalar_type(len(tokenizer) - 1).name


def encode(lines: Iterable[str], tokenizer: Tokenizer, *, dropout: bool) -> Iterator[list[int]]:
    """The ids of each line, in batches that the tokenizer encodes in parallel."""
    for batch in batches(lines, LETTERS_AT_ONCE):
        yield from tokenizer.encode_batch(batch, dropout=dropout)
