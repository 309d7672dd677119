"""A tokenised corpus on disk: one memory-mapped array a split, made once and opened in no time."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

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
        key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:20]
        folder = cache / key
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{key}.lock"):
            if not (folder / "corpus.json").exists():
                build(source, recipe, line_end, folder, description)
        facts = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.arrays = {split: open_array(folder / f"{split}.ids", facts["dtype"]) for split in facts["splits"]}


def build(source: Source, recipe: TokenizerRecipe, line_end: str | None, folder: Path, description: dict[str, Any]) -> None:
    """Train the tokenizer and write every split; the file that says all is there comes last."""
    folder.mkdir(exist_ok=True)
    splits = source.splits()
    tokenizer = recipe.train(splits["train"])
    end = [] if line_end is None else [tokenizer.id_of(line_end)]
    dtype = "uint16" if len(tokenizer) <= 2**16 else "int32"
    for split, lines in splits.items():
        with (folder / f"{split}.ids").open("wb") as file:
            for ids in encode(lines, tokenizer, dropout=split == "train"):
                np.asarray(ids + end, dtype=dtype).tofile(file)
    (folder / "tokenizer.json").write_text(tokenizer.to_json(), encoding="utf-8")
    partial = folder / "corpus.json.partial"
    partial.write_text(json.dumps({"splits": list(splits), "dtype": dtype, **description}, indent=2), encoding="utf-8")
    partial.replace(folder / "corpus.json")


def encode(lines: Iterable[str], tokenizer: Tokenizer, *, dropout: bool) -> Iterator[list[int]]:
    """The ids of each line, in batches that the tokenizer encodes in parallel."""
    remaining = iter(lines)
    while batch := list(islice(remaining, LINES_AT_ONCE)):
        yield from tokenizer.encode_batch(batch, dropout=dropout)


def open_array(path: Path, dtype: str) -> np.ndarray:
    """The ids in a file, read where they are used; an empty file cannot be mapped, and needs not be."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.zeros(0, dtype=dtype)
