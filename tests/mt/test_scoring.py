"""The probability of given translations: against searches, prefix by prefix by hand, and alone against in a batch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from datamodules.number_pairs import NumberPairs
from datamodules.recipes import Words
from datamodules.translation import TranslationData
from lm.layers import GRU
from lm.network import RecurrentNetwork
from mt import AttentionDecoder, ContextDecoder, Seq2Seq
from mt import module as seq2seq
from mt.attention import AdditiveAttention
from mt.beam import BeamSearch
from mt.constraints import Constraints

WORDS = Words(reserved_tokens=("<unk>", "<pad>", "<bos>", "<eos>"))
SMALL = partial(RecurrentNetwork, embedding_size=16, layer_sizes=[16], cell=GRU, output_dropout=0.5)
SOURCES = ["forty two", "seven", "one hundred twenty three", "", "six"]
TARGETS = ["cuarenta y dos", "", "ciento veintitrés mil", "uno", "seis"]
DECODERS: dict[str, Callable[..., Any]] = {
    "context": ContextDecoder,
    "after": AttentionDecoder,
    "before": partial(AttentionDecoder, look="before", input_feeding=True),
    "coverage": partial(AttentionDecoder, attention=partial(AdditiveAttention, coverage=True)),
}


@pytest.fixture(params=DECODERS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Seq2Seq:
    """Untrained, in float64, in training mode with dropout."""
    data = TranslationData(NumberPairs(target="es", limit=99), WORDS, WORDS, cache=str(tmp_path))
    torch.manual_seed(0)
    decoder = partial(DECODERS[request.param], network=SMALL)
    found = Seq2Seq(data.source_vocab_size, data.target_vocab_size, partial(SMALL, bidirectional=True), decoder).double()
    found.source_tokenizer, found.target_tokenizer = data.source_tokenizer, data.target_tokenizer
    return found


def nll_by_hand(model: Seq2Seq, source: str, target: str) -> list[float]:
    """Of each token: the whole prefix before it is read anew, and the output layer written out."""
    assert model.source_tokenizer is not None
    assert model.target_tokenizer is not None
    read = [*model.source_tokenizer.encode(source), model.source_tokenizer.id_of("<eos>")]
    bos, eos = map(model.target_tokenizer.id_of, ("<bos>", "<eos>"))
    ids = [*model.target_tokenizer.encode(target), eos]
    found = []
    with model.evaluating(), torch.no_grad():
        memory = model.read(torch.tensor([read]), torch.tensor([len(read)]))
        for place, token in enumerate(ids):
            prefix = torch.tensor([[bos, *ids[:place]]])
            hidden = model.decoder(prefix, memory, model.decoder.start(memory)).hidden[0, -1]
            logits = functional.linear(hidden, model.head.weight, model.head.bias)  # type: ignore[arg-type]
            found.append(float(logits.logsumexp(dim=0) - logits[token]))
    return found


def test_scores_are_those_of_every_prefix_by_hand(model: Seq2Seq) -> None:
    for source, target, found in zip(SOURCES, TARGETS, model.score(SOURCES, TARGETS), strict=True):
        expected = nll_by_hand(model, source, target)
        assert found.nll.tolist() == pytest.approx(expected, abs=1e-6)  # attention weighs in fp32
        assert found.log_prob == pytest.approx(-sum(expected), abs=1e-6)
        assert found.nll.dtype == torch.float64
    assert model.training


def test_a_translation_is_as_probable_as_its_search_said(model: Seq2Seq) -> None:
    assert model.target_tokenizer is not None
    with torch.no_grad():
        model.head.get_parameter("bias")[model.target_tokenizer.id_of("<eos>")] += 2  # or no untrained translation ends
    translations = model.translate(SOURCES[:3], BeamSearch(width=4, n_best=4, constraints=Constraints(min_length=4)))
    finished = [(source, each) for source, found in zip(SOURCES, translations, strict=False) for each in found if each.finished]
    assert len(finished) == 12
    scores = model.score([source for source, _ in finished], [each.text for _, each in finished])
    for (_, each), score in zip(finished, scores, strict=True):
        assert score.tokens == each.tokens
        assert score.log_prob == pytest.approx(each.log_prob, abs=1e-6)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-9), (torch.float32, 1e-4)])
def test_a_pair_is_scored_alike_alone_and_beside_others(model: Seq2Seq, dtype: torch.dtype, limit: float) -> None:
    model.to(dtype)
    for source, target, together in zip(SOURCES, TARGETS, model.score(SOURCES, TARGETS), strict=True):
        (alone,) = model.score(source, target)
        assert alone.tokens == together.tokens
        torch.testing.assert_close(alone.nll, together.nll, rtol=0, atol=limit)


def test_a_long_target_is_scored_in_parts_like_in_one(model: Seq2Seq, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model.score(SOURCES, TARGETS)
    monkeypatch.setattr(seq2seq, "PLACES_AT_ONCE", 2 * len(SOURCES) * 5)  # two steps at once: the longest source has 5 tokens
    for one, other in zip(whole, model.score(SOURCES, TARGETS), strict=True):
        torch.testing.assert_close(one.nll, other.nll, rtol=0, atol=1e-9)


@pytest.mark.parametrize("model", ["after"], indirect=True)
class TestTexts:
    def test_an_empty_target_is_its_end_and_a_strange_word_is_unknown(self, model: Seq2Seq) -> None:
        empty, unknown, blank = model.score(["seven"] * 3, ["", "zebra uno", " "])
        assert empty.tokens == blank.tokens == ["<eos>"]
        assert unknown.tokens == ["<unk>", "uno", "<eos>"]
        assert empty.log_prob == pytest.approx(blank.log_prob)
        assert empty.log_prob < 0

    def test_no_pair_no_score(self, model: Seq2Seq) -> None:
        assert model.score([], []) == []

    def test_every_source_needs_a_target(self, model: Seq2Seq) -> None:
        with pytest.raises(ValueError, match="there are 2 sources and 1 targets; give a target for each source"):
            model.score(["six", "seven"], "seis")

    def test_a_model_without_tokenizers_says_what_to_set(self, model: Seq2Seq) -> None:
        model.target_tokenizer = None
        with pytest.raises(ValueError, match=r"trained without; set model\.source_tokenizer and model\.target_tokenizer"):
            model.score("six", "seis")
