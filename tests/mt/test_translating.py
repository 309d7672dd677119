"""Texts in, translations out: lengths, prefixes, what a search does not find, and how unknown words are written."""

from collections.abc import Sequence
from functools import partial
from itertools import product

import pytest
import torch

from datamodules.recipes import BPE, Bytes, Characters, TrainedRecipe, Unigram, WordPiece, Words
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt.beam import BeamSearch
from mt.constraints import Constraints
from mt.exhaustive import ExhaustiveSearch
from mt.ranking import Ranking
from mt.search import GreedySearch, Search
from mt.translation import readable, stretches, translate

RESERVED = ("<unk>", "<pad>", "<bos>", "<eos>")
WORDS = "a b c d e f g h"
WRITER = partial(RecurrentNetwork, embedding_size=8, layer_sizes=[8], cell=GRU)


def make_model(decoder: type[AttentionDecoder] | type[ContextDecoder] = AttentionDecoder) -> Seq2Seq:
    """An untrained model of eight words, the same ones on both sides, that tells texts apart."""
    torch.manual_seed(1)
    tokenizer = Words(reserved_tokens=RESERVED).train([WORDS])
    model = Seq2Seq(tokenizer.vocab_size, tokenizer.vocab_size, WRITER, partial(decoder, network=WRITER)).double()
    for parameter in model.parameters():
        parameter.data *= 3
    model.source_tokenizer = model.target_tokenizer = tokenizer
    return model


@pytest.fixture
def model() -> Seq2Seq:
    return make_model()


def lengths(model: Seq2Seq, texts: Sequence[str], search: Search) -> list[int]:
    return [len(best.tokens) for best, *_ in model.translate(texts, search)]


@pytest.mark.parametrize("search", [GreedySearch, BeamSearch])
def test_a_text_without_any_translation_keeps_its_place(model: Seq2Seq, search: type[Search]) -> None:
    impossible = search(constraints=Constraints(min_length=12, no_repeat_ngram=1))  # there are nine words
    found = model.translate(["a b", "", "c"], impossible)
    assert [[translation.text for translation in translations] for translations in found] == [[""], [""], [""]]
    assert [translations[0].finished for translations in found] == [False, True, False]
    assert found[2][0].source_tokens == ["c", "<eos>"]
    assert found[2][0].score == found[2][0].log_prob == -torch.inf


def test_a_minimum_length_above_the_usual_maximum_raises_it(model: Seq2Seq) -> None:
    search = GreedySearch(constraints=Constraints(min_length=20))  # a text of one word has 2 · 2 + 10 at most
    short, long = lengths(model, ["a", WORDS], search)
    assert short == 20
    assert long >= 20


def test_a_maximum_length_lowers_the_usual_one_and_does_not_raise_it(model: Seq2Seq) -> None:
    endless = Constraints(min_length=3, max_length=3)
    assert lengths(model, ["a", WORDS], BeamSearch(constraints=endless)) == [3, 3]
    model.head.get_parameter("bias").data[RESERVED.index("<eos>")] = -1e3  # never ends by itself
    assert lengths(model, ["a", WORDS], GreedySearch(constraints=Constraints(max_length=9))) == [9, 9]
    assert lengths(model, ["a", WORDS], GreedySearch(constraints=Constraints(max_length=20))) == [14, 20]


def test_a_maximum_length_lets_an_exhaustive_search_look_at_everything(model: Seq2Seq) -> None:
    search = ExhaustiveSearch(constraints=Constraints(max_length=3), ranking=Ranking(alpha=0))
    best = model.translate("a b", search)[0][0]
    texts = [" ".join(words) for length in range(3) for words in product(["<unk>", *WORDS.split()], repeat=length)]
    scores = [found.log_prob for found in model.score(["a b"] * len(texts), texts)]
    assert best.score == pytest.approx(max(scores), abs=1e-9)
    assert best.text == texts[scores.index(max(scores))]
    with pytest.raises(ValueError, match=r"translations of up to 14 tokens, .* lower constraints\.max_length, or take a beam"):
        model.translate("a", ExhaustiveSearch())


def test_a_translation_begins_with_its_prefix_and_goes_on_after_it(model: Seq2Seq) -> None:
    plain, forced = (model.translate(["a b c", "d"], BeamSearch(), prefixes=prefixes) for prefixes in ("", ["h g", ""]))
    assert forced[0][0].text.startswith("h g")
    assert forced[1][0].text == plain[1][0].text
    both = model.translate(["a b c", "", "d"], GreedySearch(), prefixes="g")
    assert [best.text[:1] for best, *_ in both] == ["g", "", "g"]
    again = model.score("a b c", forced[0][0].text)[0]
    assert not forced[0][0].finished or again.log_prob == pytest.approx(forced[0][0].log_prob, abs=1e-9)


def test_a_prefix_may_be_long_and_its_unknown_words_are_written(model: Seq2Seq) -> None:
    prefix = "zebra h " * 10
    best = model.translate("a", prefixes=prefix)[0][0]
    assert best.text.startswith(prefix.strip())
    assert best.tokens[:2] == ["zebra", "h"]


def test_there_is_a_prefix_for_each_text(model: Seq2Seq) -> None:
    with pytest.raises(ValueError, match="prefixes: 1 for 2 texts; give one for each"):
        model.translate(["a", "b"], prefixes=["h"])


def test_unknown_words_are_copied_from_where_the_model_looked(model: Seq2Seq) -> None:
    model.head.get_parameter("bias").data[RESERVED.index("<unk>")] = 1e3  # knows no word at all
    best = translate([model], ["zebra a yak"], GreedySearch(), copy_unknown=True)[0][0]
    assert best.attention is not None
    looked = best.attention[:, :3].argmax(dim=1).tolist()
    assert best.text.split() == [["zebra", "a", "yak"][place] for place in looked]


def test_without_attention_no_word_can_be_copied() -> None:
    with pytest.raises(ValueError, match=r"copy_unknown: this model has no attention .* leave copy_unknown out"):
        translate([make_model(ContextDecoder)], ["a"], GreedySearch(), copy_unknown=True)


WORDPIECE = WordPiece(("[UNK]", "[PAD]", "[CLS]", "[SEP]"))


@pytest.mark.parametrize(
    ("recipe", "text", "expected"),
    [
        (Words(RESERVED), "a zebra b", "a zebra b"),
        (Characters(RESERVED), "我的书", "我的书"),
        (Characters(RESERVED), "<unk>é<unk>", "<unk>é<unk>"),  # the first and the last are spelled out
        (WORDPIECE, "我们的书", "我们的书"),
        (WORDPIECE, "the héllo the", "the héllo the"),
        (BPE(RESERVED, vocab_size=60, byte_level=False), "the héllo the", "the héllo the"),
        (Unigram(RESERVED, vocab_size=30), "the héllo the", "the héllo the"),
    ],
)
def test_words_in_place_of_unknown_ones_stand_as_in_a_text(recipe: TrainedRecipe, text: str, expected: str) -> None:
    tokenizer = recipe.train(["a b b", "我 我们 书", "<unk>", "hello hello the the"])
    ids = tokenizer.encode(text)
    assert tokenizer.unknown in ids
    assert readable([*ids, tokenizer.end or 0], [*stretches(tokenizer, text), "<eos>"], tokenizer) == expected
    assert readable(ids, tokenizer.tokens(ids), tokenizer) == tokenizer.decode(ids)


def test_a_word_among_bytes_is_written_in_bytes() -> None:
    tokenizer = Bytes(RESERVED).train(["a"])
    ids = [*tokenizer.encode("né "), 0, *tokenizer.encode(" é")]
    assert readable(ids, ["?"] * 4 + ["Zoë"] + ["?"] * 3, tokenizer) == "né Zoë é"
