"""Tokenizers: ids, their text, and the vocabularies that recipes learn."""

import gzip
import pickle
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from corpora import corpus
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from datamodules.recipes import (
    BPE,
    Bytes,
    Characters,
    Normalization,
    Pretrained,
    TokenizerRecipe,
    TrainedRecipe,
    Unigram,
    WordPiece,
    Words,
)
from datamodules.tokenizers import Tokenizer

ENGLISH = ["the cat sat on the mat, the cat!", "", "a dog sat on the cat; the dog ran (far).", "it's <unk> <eos> [SEP] again"] * 3
CHINESE = ["我是汤姆，你好。", "你好，我是学生。", "学生 Tom 是我的朋友。"] * 3
RECIPES: list[TrainedRecipe] = [
    Characters(),
    Words(),
    BPE(vocab_size=300),
    BPE(vocab_size=60, byte_level=False),
    WordPiece(vocab_size=80),
    Unigram(vocab_size=60),
    Bytes(),
]


def named(recipe: TokenizerRecipe) -> str:
    return type(recipe).__name__


@pytest.mark.parametrize("recipe", RECIPES, ids=named)
class TestEveryRecipe:
    def test_reserved_tokens_come_first(self, recipe: TrainedRecipe) -> None:
        tokenizer = recipe.train(ENGLISH)
        assert [tokenizer.id_of(token) for token in recipe.reserved_tokens] == list(range(len(recipe.reserved_tokens)))
        assert len(tokenizer) == tokenizer.vocab_size == len(tokenizer.backend.get_vocab())

    def test_json_and_pickle_change_nothing(self, recipe: TrainedRecipe) -> None:
        tokenizer = recipe.train(ENGLISH)
        for copy in (Tokenizer.from_json(tokenizer.to_json()), pickle.loads(pickle.dumps(tokenizer))):
            assert copy.to_json() == tokenizer.to_json()
            assert copy.encode_batch(ENGLISH) == [tokenizer.encode(text) for text in ENGLISH]
            assert copy.token_lengths() == tokenizer.token_lengths()
            assert (copy.unit, copy.unknown, copy.end) == (tokenizer.unit, tokenizer.unknown, tokenizer.end)

    def test_text_is_read_once_and_nothing_is_refused(self, recipe: TrainedRecipe) -> None:
        assert len(recipe.train(text for text in ENGLISH)) == len(recipe.train(ENGLISH))
        for nothing in ([], ["", " "]):
            with pytest.raises(ValueError, match=f"{type(recipe).__name__}: no text to train on"):
                recipe.train(nothing)

    def test_names_of_tokens_in_text_are_spelled_out(self, recipe: TrainedRecipe) -> None:
        tokenizer = recipe.train(ENGLISH)
        ids = tokenizer.encode("the <eos> cat [SEP]")
        reserved = {tokenizer.id_of(token) for token in recipe.reserved_tokens}
        assert not reserved.intersection(ids) or isinstance(recipe, Words)

    def test_describe_tells_settings_apart(self, recipe: TrainedRecipe) -> None:
        again = type(recipe)(**{**vars(recipe), "reserved_tokens": list(recipe.reserved_tokens)})
        other = type(recipe)(**{**vars(recipe), "normalization": "lowercase"})
        assert recipe.describe() == again.describe() != other.describe()

    def test_wrong_settings(self, recipe: TrainedRecipe) -> None:
        for wrong in (["<unk>", "<unk>"], ["<unk>", ""]):
            with pytest.raises(ValueError, match="a name of its own"):
                type(recipe)(**{**vars(recipe), "reserved_tokens": wrong})
        with pytest.raises(ValueError, match="no normalization 'lower': choose one of"):
            type(recipe)(**{**vars(recipe), "normalization": "lower"})
        if not recipe.made_of_bytes:
            with pytest.raises(ValueError, match="add '<unk>'"):
                type(recipe)(**{**vars(recipe), "reserved_tokens": ["<eos>"]})


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if not isinstance(recipe, Unigram)], ids=named)
def test_training_is_repeatable(recipe: TrainedRecipe) -> None:
    assert recipe.train(ENGLISH).to_json() == recipe.train(ENGLISH).to_json()


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if not isinstance(recipe, WordPiece | Words)], ids=named)
@pytest.mark.parametrize("text", ["the cat, (it's far)!", "a dog  sat on"])
def test_decoding_gives_the_text_back(recipe: TrainedRecipe, text: str) -> None:
    tokenizer = recipe.train(ENGLISH)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    "recipe",
    [
        Characters(),
        BPE(vocab_size=300),
        BPE(vocab_size=60, byte_level=False),
        WordPiece(vocab_size=60),
        Unigram(vocab_size=60),
        Bytes(),
    ],
    ids=named,
)
def test_chinese(recipe: TrainedRecipe) -> None:
    tokenizer = recipe.train(CHINESE)
    assert tokenizer.decode(tokenizer.encode("你好，我是 Tom。")) in (
        "你好，我是 Tom。",
        "你好，我是 Tom。".replace("是 ", "是 "),
    )


def test_vocabulary_is_by_frequency_and_then_by_alphabet() -> None:
    tokenizer = Words().train(["b c a", "b <unk> d d <unk>"])
    assert tokenizer.tokens(range(6)) == ["<unk>", "<eos>", "b", "d", "a", "c"]
    assert tokenizer.encode("a <unk> new b") == [4, 0, 0, 2]
    assert tokenizer.decode([2, 0, 4, 1]) == "b <unk> a <eos>"
    assert Words(min_frequency=2).train(["b c a b"]).tokens(range(3)) == ["<unk>", "<eos>", "b"]
    assert len(Words(max_size=4).train(["b c a b"])) == 4
    assert Words(max_size=4).train(["<unk> <unk> <eos> a c c b b b"]).tokens(range(4)) == ["<unk>", "<eos>", "b", "c"]


def test_ids_of_usual_names() -> None:
    tokenizer = WordPiece().train(["a cat"])
    assert (tokenizer.unknown, tokenizer.beginning, tokenizer.end, tokenizer.padding, tokenizer.mask) == (0, 1, 2, 3, 4)
    tokenizer = Characters(reserved_tokens=["<pad>", "<unk>", "<s>"]).train(["a cat"])
    assert (tokenizer.unknown, tokenizer.beginning, tokenizer.end, tokenizer.padding, tokenizer.mask) == (1, 2, None, 0, None)


@pytest.mark.parametrize(
    ("normalization", "text", "expected"),
    [
        ("none", "Mr. X's", "Mr. X's"),
        ("lowercase", "Mr. X's", "mr. x's"),
        ("letters", " Mr. X's 3 é-dogs!", "mr x s dogs"),
        ("punctuation", "Mr.\u202fX's, é!\u00a0«Quoi» ?", "mr . x's , é ! «quoi» ?"),
        ("punctuation", ".. no!?", ". . no ! ?"),
        ("strip", " A  b.\t", "A  b."),
        ("article", "Mr. X's $3 “dogs”, re-run_.", "mr  xs 3 dogs rerun "),
    ],
)
def test_normalization_is_part_of_the_tokenizer(normalization: Normalization, text: str, expected: str) -> None:
    tokenizer = Bytes(normalization=normalization).train(["a"])
    assert tokenizer.decode(Tokenizer.from_json(tokenizer.to_json()).encode(text)) == expected


def test_a_space_stands_before_every_mark_of_punctuation() -> None:
    draw = random.Random(0)
    normalize = Bytes(normalization="punctuation").train(["a"]).backend.normalizer.normalize_str
    for _ in range(300):
        text = "".join(draw.choices("Aé ,.!?\u00a0\u202f\t", k=12))
        plain = text.replace("\u00a0", " ").replace("\u202f", " ").lower()
        spaced = [f" {mark}" if mark in ",.!?" and before != " " else mark for before, mark in pairwise(plain)]
        assert normalize(text) == plain[0] + "".join(spaced)


def test_lengths_add_up_to_the_text() -> None:
    text = "é 你好 x\n👍<eos>"
    for recipe in (Bytes(), BPE(vocab_size=300)):
        tokenizer = recipe.train(["hello 你好 <eos>"])
        lengths = tokenizer.token_lengths()
        assert tokenizer.unit == "byte"
        assert lengths is not None
        assert sum(lengths[i] for i in tokenizer.encode(text)) == len(text.encode())
        assert lengths[tokenizer.id_of("<eos>")] == 1
    assert Characters().train(["abc"]).unit == "character"
    assert Characters().train(["abc"]).token_lengths() == [1, 1, 1, 1]
    for without in (Words().train(["a b"]), BPE(vocab_size=60, byte_level=False).train(["a b"]), WordPiece().train(["a b"])):
        assert without.unit is None
        assert without.token_lengths() is None


def test_spellings_are_characters_and_reserved_tokens_are_whole() -> None:
    tokenizer = Words().train(["to <unk> too"])
    spelled = dict(zip(tokenizer.tokens(range(len(tokenizer))), tokenizer.spellings(), strict=True))
    assert (spelled["to"], spelled["too"]) == (["t", "o"], ["t", "o", "o"])
    assert (spelled["<unk>"], spelled["<eos>"]) == (["<unk>"], ["<eos>"])


def test_tokens_of_bytes_are_text_where_they_are_characters() -> None:
    assert Bytes().train(["a"]).tokens(Bytes().train(["a"]).encode("a é")) == ["a", " ", "Ã", "©"]
    tokenizer = BPE(vocab_size=262).train(["你 你 你 你"])
    assert " 你" in tokenizer.tokens(tokenizer.encode("你 你"))


def test_dropout_acts_on_training_text_alone() -> None:
    tokenizer = BPE(vocab_size=300, dropout=0.5).train(ENGLISH)
    tokenizer = Tokenizer.from_json(tokenizer.to_json())
    assert tokenizer.dropout == 0.5
    plain = tokenizer.encode(ENGLISH[0])
    dropped = tokenizer.encode_batch(ENGLISH[:1] * 20, dropout=True)
    assert any(ids != plain for ids in dropped)
    assert {tokenizer.decode(ids) for ids in dropped} == {ENGLISH[0]}
    assert tokenizer.encode_batch(ENGLISH[:1] * 20) == [plain] * 20


def test_limit_alphabet_keeps_the_most_frequent_letters() -> None:
    tokenizer = WordPiece(limit_alphabet=2).train(["aab ab c", "aa"])
    assert tokenizer.decode(tokenizer.encode("ab c")) == "ab [UNK]"
    assert {name.strip("#") for name in tokenizer.tokens(range(5, len(tokenizer)))} <= {"a", "b", "ab", "aa", "aab"}


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (BPE(vocab_size=100), "BPE: .*258 tokens, over vocab_size=100: raise vocab_size"),
        (BPE(vocab_size=3, byte_level=False), "BPE: .* over vocab_size=3: .*byte_level"),
        (WordPiece(vocab_size=9), "WordPiece: .* over vocab_size=9: raise vocab_size, or set limit_alphabet"),
        (Unigram(vocab_size=4), "Unigram: 4 tokens are too few .* raise vocab_size"),
    ],
    ids=named,
)
def test_an_alphabet_that_does_not_fit(recipe: TrainedRecipe, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe.train(ENGLISH)


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        (Words, {"min_frequency": 0}, "min_frequency=0"),
        (Words, {"max_size": 2}, "max_size=2 leaves no room beside 2"),
        (BPE, {"dropout": 1.0}, "a probability below 1, got 1.0"),
        (WordPiece, {"limit_alphabet": 0}, "limit_alphabet=0"),
    ],
)
def test_settings_out_of_range(recipe: type[TrainedRecipe], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(**settings)


def test_ids_and_tokens_that_do_not_exist() -> None:
    tokenizer = Words().train(["a b"])
    for ids in ([4], [-1]):
        with pytest.raises(ValueError, match=rf"no token {ids[0]}: its ids run from 0 to 3"):
            tokenizer.decode(ids)
        with pytest.raises(ValueError, match="ids run from"):
            tokenizer.tokens(ids)
    with pytest.raises(ValueError, match="'zebra' is not among its 4 tokens"):
        tokenizer.id_of("zebra")
    with pytest.raises(ValueError, match="2 tokens have ids up to 5"):
        Tokenizer(Backend(models.WordLevel({"a": 0, "b": 5}, unk_token="a")))


def test_pretrained(tmp_path: Path) -> None:
    backend = Backend(
        models.BPE({token: i for i, token in enumerate(["<|endoftext|>", *pre_tokenizers.ByteLevel.alphabet()])}, [])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<|endoftext|>"])
    backend.enable_truncation(2)
    backend.enable_padding()
    file = tmp_path / "tokenizer.json"
    backend.save(str(file))
    recipe = Pretrained(str(file))
    tokenizer = recipe.train([])
    assert (tokenizer.end, tokenizer.unknown, tokenizer.unit) == (0, None, "byte")
    assert [len(ids) for ids in tokenizer.encode_batch(["abc", "<|endoftext|>"])] == [3, 13]
    before = recipe.describe()
    file.write_text(Words().train(["other"]).to_json())
    assert recipe.describe() != before


def test_pretrained_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(FileNotFoundError, match="neither a file here nor a tokenizer of the hub"):
        Pretrained(str(file)).train([])
    file.write_text("{}")
    with pytest.raises(ValueError, match=r"is no tokenizer\.json"):
        Pretrained(str(file)).train([])


def test_the_time_machine() -> None:
    lines = corpus("time-machine", "timemachine.txt").read_text(encoding="utf-8").splitlines()
    characters = Characters(normalization="letters").train(lines)
    assert (len(characters), sum(map(len, characters.encode_batch(lines)))) == (28, 170_580)
    words = Words(reserved_tokens=["<unk>"], normalization="letters").train(lines)
    ids = [i for line in words.encode_batch(lines) for i in line]
    assert (len(words), len(ids)) == (4580, 32_775)
    assert [(words.tokens([i])[0], n) for i, n in Counter(ids).most_common(3)] == [("the", 2261), ("i", 1267), ("and", 1245)]


def test_wikitext() -> None:
    with gzip.open(corpus("wikitext-2", "valid.txt.gz"), "rt", encoding="utf-8") as file:
        lines = [line.rstrip("\n") for line in file]
    tokenizer = Words().train(lines)
    ids = tokenizer.encode_batch(lines)
    assert sum(len(line) + 1 for line in ids) == 217_646
    assert sum(line.count(0) for line in ids) == sum(line.split().count("<unk>") for line in lines) > 0
