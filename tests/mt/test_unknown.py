import pytest
import torch
from tiny_models import EOS, PAD, UNK, A, B, Tables, texts

from mt.search import GreedySearch
from mt.unknown import replace_unknown


def test_an_unknown_word_becomes_the_source_word_it_attends_to_most() -> None:
    tokens = torch.tensor([A, UNK, UNK, EOS, PAD])
    attention = torch.tensor([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.3, 0.2, 0.5], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    words = replace_unknown(tokens, ["ein", "<unk>", "<unk>", "<eos>"], attention, ["a", "Zaphod", "Beeblebrox"], UNK)
    assert words == ["ein", "Zaphod", "Beeblebrox", "<eos>"]


def test_the_end_of_the_source_is_not_copied() -> None:
    words = replace_unknown(torch.tensor([UNK]), ["<unk>"], torch.tensor([[0.1, 0.2, 0.7]]), ["a", "b"], UNK)
    assert words == ["b"]


def test_a_known_word_that_is_spelled_like_the_unknown_one_stays() -> None:
    assert replace_unknown(torch.tensor([B]), ["<unk>"], torch.tensor([[1.0]]), ["a"], UNK) == ["<unk>"]


def test_it_reads_what_a_search_returns() -> None:
    model = Tables.random(1, seed=3)
    output = model.search(GreedySearch(), 6, prefixes=[[UNK]])
    assert output.attention is not None
    text = texts(output)[0]
    words = replace_unknown(output.tokens[0, 0], [f"t{i}" for i in text], output.attention[0, 0], ["a", "b", "c", "d"], UNK)
    assert words[0] == "abcd"[int(output.attention[0, 0, 0].argmax())]
    assert [word for word in words if word.startswith("t")] == [f"t{i}" for i in text if i != UNK]


@pytest.mark.parametrize(("words", "source"), [(["a", "b"], ["x"]), (["a"], []), (["a"], ["x", "y", "z"])])
def test_what_does_not_belong_together_is_refused(words: list[str], source: list[str]) -> None:
    with pytest.raises(ValueError, match=rf"{len(words)} words of 1 tokens .* \(1, 2\) over {len(source)} source words"):
        replace_unknown(torch.tensor([UNK]), words, torch.tensor([[0.5, 0.5]]), source, UNK)
