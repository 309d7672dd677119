"""A tokenised corpus of pairs on disk, made once and opened in no time."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from datamodules.cache import cached
from datamodules.corpus import dtype_of, encode
from datamodules.pairs import Pair, Pairs, PairSource
from datamodules.ragged import Ragged
from datamodules.recipes import TokenizerRecipe
from datamodules.sources import Split
from datamodules.tokenizers import Tokenizer


class Recipes(NamedTuple):
    """How the tokenizers of both sides are trained, on the training split alone.

    Attributes:
        source: for the source side, or for both.
        target: for the target side; None to train one tokenizer on both sides.
    """

    source: TokenizerRecipe
    target: TokenizerRecipe | None


class Texts:
    """The pairs of a split as they were before any tokenizer, read from disk where they are asked for.

    Args:
        source: UTF-8 of each text.
        target: UTF-8 of each translation.
        further: the same of further translations, to score others by; empty where a text has no such one.
    """

    def __init__(self, source: Ragged, target: Ragged, *further: Ragged) -> None:
        self.source = source
        self.target = target
        self.further = further

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Pair:
        return Pair(self.source[index].tobytes().decode(), self.target[index].tobytes().decode())

    def __iter__(self) -> Iterator[Pair]:
        return map(self.__getitem__, range(len(self)))

    def references(self, index: int) -> list[str]:
        """The right translations of a text: that of its pair, and those further ones that there are."""
        further = (part[index].tobytes().decode() for part in self.further)
        return [self[index].target, *(text for text in further if text.strip())]


class TokenPairs(NamedTuple):
    """The pairs of a split.

    Attributes:
        source: ids of each text, with no special token.
        target: ids of each translation, the same.
        texts: what they were.
        gaps: numbers of the pairs that are not among these, because one of their sides is empty, as in `Pairs`.
    """

    source: Ragged
    target: Ragged
    texts: Texts
    gaps: Sequence[int]


class PairCorpus:
    """The tokens of a source of pairs, cached under what made them.

    What a tokenizer lacks of a token for padding, the beginning and the end is added to its vocabulary, last: `<pad>`,
    `<bos>`, `<eos>`. BPE dropout is drawn once, when the corpus is made.

    Args:
        source: of the pairs.
        recipes: of the tokenizers.
        cache: folder that holds corpora; each gets a folder of its own in it.

    Attributes:
        source_tokenizer: trained, or read from the cache.
        target_tokenizer: the same object where both sides share one.
        splits: the pairs of each split.
    """

    def __init__(self, source: PairSource, recipes: Recipes, cache: Path) -> None:
        description = {
            "pairs": source.describe(),
            "source_tokenizer": recipes.source.describe(),
            "target_tokenizer": None if recipes.target is None else recipes.target.describe(),
            "format": 4,
        }
        folder, facts = cached(cache, description, partial(build, source, recipes))
        self.source_tokenizer = read_tokenizer(folder / "source.json")
        self.target_tokenizer = self.source_tokenizer if recipes.target is None else read_tokenizer(folder / "target.json")
        dtypes = dtype_of(self.source_tokenizer), dtype_of(self.target_tokenizer)
        self.splits: dict[Split, TokenPairs] = {
            split: open_pairs(folder / split, gaps, facts["references"][split], *dtypes) for split, gaps in facts["gaps"].items()
        }


def build(source: PairSource, recipes: Recipes, folder: Path) -> dict[str, Any]:
    """Train the tokenizers, write every split, and tell which of its pairs are missing, and how many references it has."""
    splits = source.splits()
    train = splits["train"]
    if recipes.target is None:
        source_tokenizer = target_tokenizer = completed(recipes.source.train(chain(train.source, train.target)))
    else:
        source_tokenizer = completed(recipes.source.train(train.source))
        target_tokenizer = completed(recipes.target.train(train.target))
        (folder / "target.json").write_text(target_tokenizer.to_json(), encoding="utf-8")
    (folder / "source.json").write_text(source_tokenizer.to_json(), encoding="utf-8")
    for split, pairs in splits.items():
        write_pairs(folder / split, pairs, source_tokenizer, target_tokenizer, dropout=split == "train")
    return {
        "gaps": {split: list(pairs.gaps) for split, pairs in splits.items()},
        "references": {split: len(pairs.references) for split, pairs in splits.items()},
    }


def completed(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer, with ids for padding, beginning and end."""
    marks = {"<pad>": tokenizer.padding, "<bos>": tokenizer.beginning, "<eos>": tokenizer.end}
    tokenizer.backend.add_special_tokens([name for name, number in marks.items() if number is None])
    return Tokenizer(tokenizer.backend)


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer that `build` wrote."""
    return Tokenizer.from_json(path.read_text(encoding="utf-8"))


def write_pairs(folder: Path, pairs: Pairs, source: Tokenizer, target: Tokenizer, *, dropout: bool) -> None:
    """Ids of both sides of a split, and texts: those of the source, the target and further references, in this order."""
    folder.mkdir(exist_ok=True)
    for name, lines, tokenizer in (("source", pairs.source, source), ("target", pairs.target, target)):
        Ragged.write(folder / f"{name}.ids", encode(lines, tokenizer, dropout=dropout), dtype_of(tokenizer))
    for number, lines in enumerate((pairs.source, pairs.target, *pairs.references)):
        Ragged.write(folder / f"{number}.text", (text.encode() for text in lines), "uint8")


def open_pairs(folder: Path, gaps: Sequence[int], references: int, source_dtype: str, target_dtype: str) -> TokenPairs:
    """What `write_pairs` wrote, with so many further references."""
    texts = Texts(*(Ragged.open(folder / f"{number}.text", "uint8") for number in range(2 + references)))
    source, target = Ragged.open(folder / "source.ids", source_dtype), Ragged.open(folder / "target.ids", target_dtype)
    return TokenPairs(source, target, texts, gaps)
