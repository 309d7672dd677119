"""The cache of tokenised pairs: made once, opened in no time, and with all that rows need."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from corpora import GivenPairs

from datamodules.pair_corpus import PairCorpus, Recipes
from datamodules.pairs import Pairs
from datamodules.parallel import ParallelFiles
from datamodules.ragged import Ragged
from datamodules.recipes import BPE, Bytes, Characters, TokenizerRecipe, Unigram, WordPiece, Words
from datamodules.sources import Split
from datamodules.tokenizers import Tokenizer

TRAIN = [("a dog", "ein Hund"), ("", "leer"), ("a cat and a dog", "eine Katze und ein Hund")]


class Counted(GivenPairs):
    """Pairs that count how often they are asked for."""

    asked: list[int]

    def load(self) -> dict[Split, Pairs]:
        self.__dict__.setdefault("asked", []).append(1)
        return super().load()


def words(corpus: PairCorpus, split: Split) -> list[tuple[list[str], list[str]]]:
    pairs = corpus.splits[split]
    return [
        (corpus.source_tokenizer.tokens(source.tolist()), corpus.target_tokenizer.tokens(target.tolist()))
        for source, target in zip(pairs.source, pairs.target, strict=True)
    ]


def test_ids_of_both_sides(tmp_path: Path) -> None:
    corpus = PairCorpus(GivenPairs(TRAIN, [("a bird", "ein Hund")]), Recipes(Words(), Words()), tmp_path)
    assert words(corpus, "train") == [(source.split(), target.split()) for source, target in TRAIN if source]
    assert words(corpus, "validation") == [(["a", "<unk>"], ["ein", "Hund"])]
    assert (corpus.splits["train"].gaps, corpus.splits["validation"].gaps) == ([1], [])
    assert len(corpus.source_tokenizer) == 4 + 4
    assert len(corpus.target_tokenizer) == 4 + 5


def test_texts_are_what_they_were_before_any_tokenizer(tmp_path: Path) -> None:
    given = [("A  Dog\u2028", "嗨，\tHund "), ("\u00e9" * 50, "\U0001f600")]
    texts = PairCorpus(GivenPairs(given), Recipes(Words(normalization="letters"), Words()), tmp_path).splits["train"].texts
    assert list(texts) == given
    assert len(texts) == 2
    assert texts[1].target == "\U0001f600"


def test_references_of_a_text_are_those_that_it_has(tmp_path: Path) -> None:
    for name, lines in {"a": "one\n\nthree\n", "b": "eins\nzwei\ndrei\n", "1": " \n2\n3\n", "2": "I\nII\nIII drei\n"}.items():
        (tmp_path / name).write_text(lines)
    source, target, *references = (str(tmp_path / name) for name in "ab12")
    pairs = ParallelFiles({"train": source, "test": source}, {"train": target, "test": target}, {"test": references})
    for _ in ("made", "opened again"):
        splits = PairCorpus(pairs, Recipes(Words(), Words()), tmp_path / "cache").splits
        assert [splits["test"].texts.references(index) for index in (0, 1)] == [["eins", "I"], ["drei", "3", "III drei"]]
        assert splits["train"].texts.references(1) == ["drei"]


def test_one_tokenizer_for_both_sides_is_trained_on_both(tmp_path: Path) -> None:
    corpus = PairCorpus(GivenPairs(TRAIN), Recipes(Words(), None), tmp_path)
    again = PairCorpus(GivenPairs(TRAIN), Recipes(Words(), None), tmp_path)
    for each in (corpus, again):
        assert each.source_tokenizer is each.target_tokenizer
    assert {"dog", "Hund"} <= set(corpus.source_tokenizer.backend.get_vocab())
    assert words(again, "train")[0] == (["a", "dog"], ["ein", "Hund"])


@pytest.mark.parametrize(
    "recipe",
    [Words(), Characters(), Bytes(), BPE(vocab_size=280), Unigram(vocab_size=40), WordPiece(vocab_size=60)],
    ids=lambda recipe: type(recipe).__name__,
)
def test_special_tokens_that_are_missing_are_added_last(tmp_path: Path, recipe: TokenizerRecipe) -> None:
    plain = recipe.train(source for source, _ in TRAIN)
    tokenizer = PairCorpus(GivenPairs(TRAIN), Recipes(recipe, recipe), tmp_path).source_tokenizer
    special = [tokenizer.padding, tokenizer.beginning, tokenizer.end]
    assert None not in special
    assert len({*special, tokenizer.unknown}) == 4
    had = (plain.padding, plain.beginning, plain.end)
    assert len(tokenizer) == len(plain) + had.count(None)
    assert all(
        new == old or (old is None and new >= len(plain)) for new, old in zip(special, had, strict=True) if new is not None
    )
    assert not set(special) & set(tokenizer.encode("a <bos> dog <pad>"))


def test_a_corpus_is_made_once_and_then_mapped(tmp_path: Path) -> None:
    source = Counted(TRAIN)
    made = PairCorpus(source, Recipes(Words(), Words()), tmp_path)
    again = PairCorpus(source, Recipes(Words(), Words()), tmp_path)
    assert len(source.asked) == 1
    assert words(made, "train") == words(again, "train")
    pairs = again.splits["train"]
    for part in (pairs.source, pairs.target, pairs.texts.source):
        assert isinstance(part.values, np.memmap)
        assert not part.values.flags.writeable
    PairCorpus(source, Recipes(Words(), None), tmp_path)
    PairCorpus(source, Recipes(Words(), Words(min_frequency=2)), tmp_path)
    PairCorpus(Counted(TRAIN[2:]), Recipes(Words(), Words()), tmp_path)
    assert len(source.asked) == 3


class FailsOnce(Words):
    """Words of which nothing can be learnt the first time."""

    def train(self, texts: Iterable[str]) -> Tokenizer:
        if not vars(self).setdefault("tried", []):
            vars(self)["tried"].append(1)
            raise OSError("the disk is gone")
        return super().train(texts)


def test_a_corpus_that_broke_off_is_made_anew(tmp_path: Path) -> None:
    recipes = Recipes(Words(), FailsOnce())
    with pytest.raises(OSError, match="the disk is gone"):
        PairCorpus(GivenPairs(TRAIN), recipes, tmp_path)
    assert not list(tmp_path.glob("*/corpus.json"))
    (folder,) = (path for path in tmp_path.iterdir() if path.is_dir())  # it had begun
    (folder / "source.json").write_text("half")
    corpus = PairCorpus(GivenPairs(TRAIN), recipes, tmp_path)
    assert words(corpus, "train")[0] == (["a", "dog"], ["ein", "Hund"])
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == [folder]


@pytest.mark.parametrize("sequences", [[], [[]], [[1, 2], [], [3]], [[], [], [70]]])
def test_ragged_sequences_come_back(tmp_path: Path, sequences: Sequence[Sequence[int]]) -> None:
    Ragged.write(tmp_path / "a.ids", sequences, "uint16")
    found = Ragged.open(tmp_path / "a.ids", "uint16")
    assert [found[index].tolist() for index in range(len(found))] == sequences
    assert [part.tolist() for part in found] == sequences
    assert found.lengths.tolist() == list(map(len, sequences))
    for outside in (-1, len(sequences)):
        with pytest.raises(IndexError, match=f"no sequence {outside} of {len(sequences)}"):
            found[outside]
