"""A vocabulary that comes as a file."""

import os
from pathlib import Path

import pytest

from datamodules.word_list import WordList


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what another, or the person who runs them, has loaded."""
    import datasets

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("listed", ["<unk>\n<s>\n</s>\nthe\ncat\n", "the\ncat", "the\n\ncat\n</s>\nthe\n"])
def test_words_have_the_ids_of_the_file_after_the_reserved_tokens(tmp_path: Path, listed: str) -> None:
    tokenizer = WordList(file=write(tmp_path / "vocab.en", listed)).train(["whatever"])
    assert [tokenizer.id_of(token) for token in ("<unk>", "<s>", "</s>", "the", "cat")] == [0, 1, 2, 3, 4]
    assert (len(tokenizer), tokenizer.unknown, tokenizer.beginning, tokenizer.end) == (5, 0, 1, 2)
    assert tokenizer.encode("the dog , the <unk> cat") == [3, 0, 0, 3, 0, 4]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    recipe = WordList(file=write(tmp_path / "vocab.en", "the\n"))
    before = recipe.describe()
    assert before == recipe.describe()
    write(tmp_path / "vocab.en", "cat\n")
    os.utime(tmp_path / "vocab.en", (2e9, 2e9))
    assert recipe.describe() != before
    assert recipe.train(["x"]).id_of("cat") == 3


def test_what_is_no_list_of_words_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocab\.en lists 'the 7', which is more than one word"):
        WordList(file=write(tmp_path / "vocab.en", "a\nthe 7\n")).train(["x"])
    for ask in (WordList.describe, lambda recipe: recipe.train(["x"])):
        with pytest.raises(FileNotFoundError, match=r"the list of words is to come from nowhere\.en, and no such file exists"):
            ask(WordList(file="nowhere.en"))
    with pytest.raises(ValueError, match="no text to train on is left"):
        WordList(file=write(tmp_path / "vocab.en", "a\n")).train([" "])
