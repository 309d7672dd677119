"""A tokenised corpus of labelled texts on disk, made once."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.cache import cached
from datamodules.corpus import dtype_of, encode, trained
from datamodules.labelled import LabelledSource, LabelledText
from datamodules.labels import label_vocabulary
from datamodules.ragged import Ragged, open_array
from datamodules.recipes import TokenizerRecipe
from datamodules.sources import Split
from datamodules.tokenizers import Tokenizer


class LabelledTokens(NamedTuple):
    """The texts of a split.

    Attributes:
        tokens: ids of each, one at least.
        texts: what they were, in UTF-8.
        labels: `(texts,)` ids of their labels.
    """

    tokens: Ragged
    texts: Ragged
    labels: np.ndarray


class LabelledCorpus:
    """The tokens of a source of labelled texts, cached under what made them.

    Args:
        source: of the texts.
        recipe: of the tokenizer, trained on the training split alone.
        cache: folder that holds corpora; each gets a folder of its own in it.

    Attributes:
        tokenizer: trained, or read from the cache.
        labels: a token for each label of the training split, in the order of the alphabet.
        splits: the texts of each split.

    Raises:
        ValueError: if of a text no token is left.
    """

    def __init__(self, source: LabelledSource, recipe: TokenizerRecipe, cache: Path) -> None:
        description = {"labelled": source.describe(), "tokenizer": recipe.describe(), "format": 1}
        folder, facts = cached(cache, description, partial(build, source, recipe))
        self.tokenizer = Tokenizer.from_json((folder / "tokenizer.json").read_text(encoding="utf-8"))
        self.labels = label_vocabulary(facts["labels"])
        self.splits: dict[Split, LabelledTokens] = {
            split: LabelledTokens(
                Ragged.open(folder / f"{split}.ids", dtype_of(self.tokenizer)),
                Ragged.open(folder / f"{split}.text", "uint8"),
                open_array(folder / f"{split}.labels", "int64"),
            )
            for split in facts["splits"]
        }


def build(source: LabelledSource, recipe: TokenizerRecipe, folder: Path) -> dict[str, Any]:
    """Train the tokenizer, write every split, and tell which there are, and the labels."""
    splits = source.labelled()
    texts = {split: [text for text, _ in found] for split, found in splits.items()}
    tokenizer = trained(recipe, texts["train"], folder / "tokenizer.json")
    labels = label_vocabulary(label for _, label in splits["train"])
    for split, found in splits.items():
        ids = refuse_blank(split, found, list(encode(texts[split], tokenizer, dropout=split == "train")))
        Ragged.write(folder / f"{split}.ids", ids, dtype_of(tokenizer))
        Ragged.write(folder / f"{split}.text", (text.encode() for text in texts[split]), "uint8")
        np.array([labels.id_of(label) for _, label in found], dtype=np.int64).tofile(folder / f"{split}.labels")
    return {"splits": list(splits), "labels": labels.tokens(range(len(labels)))}


def refuse_blank(split: Split, texts: Sequence[LabelledText], ids: list[list[int]]) -> list[list[int]]:
    """The ids of texts, unless one has none."""
    for number, (text, found) in enumerate(zip(texts, ids, strict=True), start=1):
        if not found:
            raise ValueError(
                f"texts: of text {number} of {split}, {text.text[:40]!r}, the tokenizer leaves no token: drop the text, or choose"
                " another normalization"
            )
    return ids
