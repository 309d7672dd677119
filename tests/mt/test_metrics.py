"""Scores of translations: against sacrebleu's own corpus scores, by hand, and over ranks."""

import copy
import math
import os
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from sacrebleu.metrics import BLEU, CHRF
from torch.multiprocessing.spawn import spawn

from mt.metrics import ChrF, CorpusBLEU, CorpusScore, TranslationAccuracy
from mt.sentence_bleu import sentence_bleu

Corpus = tuple[list[str], list[list[str]]]


WORDS = "The cat, the dog & a 3.5-metre bird sat on (the) mat! Ein Mädchen läuft ."


def corpus(sentences: int, references: tuple[int, int] = (1, 1), seed: int = 0) -> Corpus:
    """Translations, some of them empty or short, that share words with their references, so many of them at least and at most."""
    draw = random.Random(seed)

    def sentence(shortest: int) -> str:
        return " ".join(draw.choices(WORDS.split(), k=draw.randint(shortest, 12)))

    hypotheses, given = [], []
    for _ in range(sentences):
        right = [sentence(1) for _ in range(draw.randint(*references))]
        kept = [word for word in right[0].split() if draw.random() < 0.8]
        hypotheses.append(" ".join(kept) if draw.random() < 0.8 else sentence(0))
        given.append(right)
    return hypotheses, given


def score(metric: CorpusScore, hypotheses: list[str], references: list[list[str]], batch: int = 7) -> float:
    for start in range(0, len(hypotheses), batch):
        metric.update(hypotheses[start : start + batch], references[start : start + batch])
    return float(metric.compute())


def files(references: list[list[str]]) -> list[list[str]]:
    """As sacrebleu reads them; a sentence with fewer repeats its first one, which changes neither BLEU nor chrF."""
    longest = max(len(given) for given in references)
    return [list(file) for file in zip(*(given + given[:1] * (longest - len(given)) for given in references), strict=True)]


# BLEU and chrF


def test_bleu_of_two_sentences_by_hand() -> None:
    """Matches over n-grams of the translations, first and second sentence:

    1: the, cat, on, the, mat of 6; a, dog of 2      -> 7/8
    2: the cat, on the, the mat of 5; a dog of 1     -> 4/6
    3: on the mat of 4; none of 0                    -> 1/4
    4: none of 3; none of 0                          -> 0/3, smoothed to 1/(2·3)
    Lengths are 6 + 2 against 6 + 3, which costs a factor exp(1 − 9/8).
    """
    hypotheses = ["the cat sat on the mat", "a dog"]
    references = [["the cat is on the mat"], ["a dog runs"]]
    expected = 100 * math.exp(1 - 9 / 8) * (7 / 8 * 4 / 6 * 1 / 4 * 1 / 6) ** (1 / 4)
    assert score(CorpusBLEU(), hypotheses, references, batch=1) == pytest.approx(expected, abs=1e-6)
    assert BLEU().corpus_score(hypotheses, files(references)).score == pytest.approx(expected, abs=1e-6)


def test_chrf_of_two_sentences_by_hand() -> None:
    """n-grams of the translations, of the references, and of both, first and second sentence:

    1: 3, 3, a b; 2, 3, x y        -> precision 4/5, recall 4/6
    2: 2, 2, ab; 1, 2, xy          -> 2/3, 2/4
    3: 1, 1, none; 0, 1, none      -> 0/1, 0/2
    Longer ones occur in neither. The means P = (4/5 + 2/3)/3 and R = (4/6 + 2/4)/3 give F2 = 5PR/(4P + R).
    """
    precision, recall = (4 / 5 + 2 / 3) / 3, (4 / 6 + 2 / 4) / 3
    expected = 100 * 5 * precision * recall / (4 * precision + recall)
    assert score(ChrF(), ["abc", "xy"], [["abd"], ["xyz"]], batch=1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("lowercase", [False, True])
@pytest.mark.parametrize("tokenization", ["13a", "none", "intl", "char", "zh"])
def test_bleu_is_sacrebleus(tokenization: str, lowercase: bool) -> None:
    hypotheses, references = corpus(40)
    metric, theirs = CorpusBLEU(tokenization=tokenization, lowercase=lowercase), BLEU(tokenize=tokenization, lowercase=lowercase)
    expected = theirs.corpus_score(hypotheses, files(references)).score
    assert 5 < expected < 95
    assert score(metric, hypotheses, references) == pytest.approx(expected, abs=1e-6)
    assert metric.signature == str(theirs.get_signature())
    assert f"tok:{tokenization}|" in metric.signature


@pytest.mark.parametrize("word_order", [0, 2])
@pytest.mark.parametrize("lowercase", [False, True])
def test_chrf_is_sacrebleus(word_order: int, lowercase: bool) -> None:
    hypotheses, references = corpus(40, (2, 2))
    metric, theirs = ChrF(word_order, lowercase), CHRF(word_order=word_order, lowercase=lowercase)
    expected = theirs.corpus_score(hypotheses, files(references)).score
    assert score(metric, hypotheses, references) == pytest.approx(expected, abs=1e-6)
    assert metric.signature == str(theirs.get_signature())


@pytest.mark.parametrize(("mine", "theirs"), [(CorpusBLEU, BLEU), (ChrF, CHRF)])
@pytest.mark.parametrize("seed", range(3))
def test_sentences_may_differ_in_their_number_of_references(mine: type[Any], theirs: type[Any], seed: int) -> None:
    hypotheses, references = corpus(60, (1, 4), seed)
    metric = mine()
    expected = theirs().corpus_score(hypotheses, files(references)).score
    assert score(metric, hypotheses, references) == pytest.approx(expected, abs=1e-6)
    assert metric.signature.startswith("nrefs:var|")


def test_bleu_with_several_references_is_that_of_the_sums_of_single_sentences() -> None:
    """Through sacrebleu's public functions alone."""
    hypotheses, references = corpus(30, (1, 3), seed=5)
    single = [BLEU(effective_order=True).sentence_score(*pair) for pair in zip(hypotheses, references, strict=True)]
    expected = BLEU.compute_bleu(
        correct=[sum(column) for column in zip(*(sentence.counts for sentence in single), strict=True)],
        total=[sum(column) for column in zip(*(sentence.totals for sentence in single), strict=True)],
        sys_len=sum(sentence.sys_len for sentence in single),
        ref_len=sum(sentence.ref_len for sentence in single),
        smooth_method="exp",
    )
    assert score(CorpusBLEU(), hypotheses, references) == pytest.approx(expected.score, abs=1e-6)


def test_a_missing_reference_is_not_an_empty_one() -> None:
    """An empty one is the closest in length to an empty translation, and takes the brevity penalty away."""
    hypotheses, references = ["the cat sat on the mat", ""], [["the cat sat on the mat", "a cat sat"], ["a dog"]]
    missing, empty = (score(CorpusBLEU(), hypotheses, [references[0], references[1] + extra]) for extra in ([], [""]))
    assert missing == pytest.approx(100 * math.exp(1 - 8 / 6))
    assert empty == pytest.approx(100)


def test_no_match_of_an_order_is_smoothed_and_no_match_at_all_is_zero() -> None:
    assert score(CorpusBLEU(), ["the dog sat here now"], [["the cat sat there"]]) == pytest.approx(
        BLEU().corpus_score(["the dog sat here now"], [["the cat sat there"]]).score, abs=1e-6
    )
    assert score(CorpusBLEU(), ["nothing of it"], [["the cat sat"]]) == 0
    assert score(CorpusBLEU(), [""], [["the cat sat"]]) == 0
    assert score(ChrF(), [""], [["the cat sat"]]) == 0


def test_chinese_needs_its_tokenisation() -> None:
    pair = ["我今天很高兴见到你们大家。"], [["我今天非常高兴见到你们大家。"]]
    assert score(CorpusBLEU("zh"), *pair) > 60
    assert score(CorpusBLEU("en"), *pair) == 0


@pytest.mark.parametrize("tokenization", ["13a", "none"])
def test_tokenised_text_of_any_length_is_scored_without_a_warning(tokenization: str, caplog: pytest.LogCaptureFixture) -> None:
    score(CorpusBLEU(tokenization=tokenization), ["a cat ."] * 200, [["a dog ."]] * 200, batch=200)
    assert not caplog.records


# Ranks


@pytest.mark.parametrize("make", [CorpusBLEU, ChrF])
def test_the_states_of_two_ranks_make_the_score_of_one(make: type[Any]) -> None:
    hypotheses, references = corpus(30, (2, 2), seed=2)
    references[:11] = [given[:1] for given in references[:11]]  # one each on the first rank, two on the second
    first, second, one = make(), make(), make()
    first.update(hypotheses[:11], references[:11])
    second.update(hypotheses[11:], references[11:])
    one.update(hypotheses, references)
    assert (first.counts + second.counts).tolist() == one.counts.tolist()
    second.merge_state(first)  # what torchmetrics does with the states of ranks
    assert float(second.compute()) == float(one.compute())
    assert second.signature == one.signature
    assert one.signature.startswith("nrefs:var|")


def rank(number: int, folder: str) -> None:
    """One of two processes: the first has no sentence with two references, and two sentences fewer."""
    warnings.simplefilter("ignore")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", world_size=2, rank=number)
    hypotheses, references = ranks_corpus()
    share = slice(0, 9) if number == 0 else slice(9, None)
    results: dict[str, Any] = {}
    for metric in (CorpusBLEU(), ChrF()):
        metric.update(hypotheses[share], references[share])
        results[type(metric).__name__] = (float(metric.compute()), metric.signature)
    accuracy = TranslationAccuracy()
    accuracy.update(torch.tensor([[True, number == 0]]), torch.ones(1, 2))
    results["accuracy"] = {name: value.item() for name, value in accuracy.compute().items()}
    torch.save(results, Path(folder) / f"rank{number}.pt")
    torch.distributed.destroy_process_group()


def ranks_corpus() -> Corpus:
    hypotheses, references = corpus(20, (2, 2), seed=3)
    return hypotheses, [given[: 1 if place < 9 else 2] for place, given in enumerate(references)]


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(tmp_path: Path) -> None:
    spawn(rank, (str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    first, second = (torch.load(tmp_path / f"rank{number}.pt") for number in range(2))
    assert first == second
    for metric in (CorpusBLEU(), ChrF()):
        alone = score(metric, *ranks_corpus())
        assert first[type(metric).__name__] == (alone, metric.signature)
        assert metric.signature.startswith("nrefs:var|")
    assert first["accuracy"] == {"token_accuracy": 0.75, "sequence_accuracy": 0.5}


def test_a_score_can_be_copied_pickled_and_reset() -> None:
    hypotheses, references = corpus(10)
    metric = CorpusBLEU("zh")
    expected = score(metric, hypotheses, references)
    for copied in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric))):
        assert float(copied.compute()) == expected
        assert copied.signature == metric.signature
        copied.reset()
        assert score(copied, hypotheses[:3], references[:3]) == score(CorpusBLEU("zh"), hypotheses[:3], references[:3])


def test_one_score_does_not_disturb_another_of_the_same_kind() -> None:
    hypotheses, references = corpus(10)
    first, second = CorpusBLEU(), CorpusBLEU()
    expected = score(first, hypotheses, references)
    score(second, hypotheses, [given * 2 for given in references])
    assert first.compute() == expected
    assert (first.signature[:8], second.signature[:8]) == ("nrefs:1|", "nrefs:2|")


# What is refused


def test_references_are_lists_one_for_each_translation() -> None:
    metric = CorpusBLEU()
    with pytest.raises(TypeError, match=r"are a list, even of one: write \['the cat'\]"):
        metric.update(["the cat"], ["the cat"])
    with pytest.raises(ValueError, match="CorpusBLEU: 2 translations have 1 lists of references; give one each"):
        metric.update(["a", "b"], [["a"]])
    with pytest.raises(ValueError, match="sentence 2 of 2 has no reference"):
        metric.update(["a", "b"], [["a"], []])
    assert metric.counts.sum() == 0


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_no_sentence_has_no_score() -> None:
    metric = ChrF()
    metric.update([], [])
    assert metric.compute().isnan()
    with pytest.raises(RuntimeError, match="ChrF: its signature counts references; compute a score first"):
        _ = metric.signature


def test_unknown_tokenisations_and_orders_are_refused() -> None:
    with pytest.raises(ValueError, match="'moses' is none of none, zh, 13a, intl, char, ja-mecab"):
        CorpusBLEU(tokenization="moses")
    with pytest.raises(ValueError, match=r"word_order is 0 for characters alone, .* got -1"):
        ChrF(word_order=-1)


def test_a_tokenisation_that_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    with pytest.raises(ValueError, match=r"ja-mecab does not work here, .* pip install sacrebleu\[ja\]$"):
        CorpusBLEU(tokenization="ja-mecab")


# Accuracy


def test_accuracy_of_three_sentences_by_hand() -> None:
    """Padding is neither right nor wrong, whatever was predicted there; a row of padding alone is no sentence."""
    correct = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]]).bool()
    mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    metric = TranslationAccuracy()
    metric.update(correct[:1], mask[:1].float())
    metric.update(correct[1:], mask[1:].bool())
    assert metric.compute() == {"token_accuracy": pytest.approx(8 / 9), "sequence_accuracy": pytest.approx(2 / 3)}


def test_accuracy_counts_beyond_what_a_float_can() -> None:
    metric = TranslationAccuracy()
    metric.tokens += 2**24  # where a sum in fp32 stops growing by 1
    metric.right_tokens += 2**24
    metric.update(torch.tensor([[False]]), torch.ones(1, 1))
    assert int(metric.tokens) - int(metric.right_tokens) == 1


# BLEU of one sentence


@pytest.mark.parametrize(
    ("prediction", "k", "expected", "rounded"),
    [
        # 5 tokens against 6; A, B, C, D of 5 match, AB, BC, CD of 4, and BCD of 3
        ("A B B C D", 2, math.exp(1 - 6 / 5) * (4 / 5) ** (1 / 2) * (3 / 4) ** (1 / 4), 0.681),
        ("A B B C D", None, math.exp(1 - 6 / 5) * (4 / 5) ** (1 / 2) * (3 / 4) ** (1 / 4) * (1 / 3) ** (1 / 8), 0.594),
        ("A B", 2, math.exp(1 - 6 / 2), 0.135),
        ("A B", None, math.exp(1 - 6 / 2), 0.135),
        ("A B", 9, math.exp(1 - 6 / 2), 0.135),  # it has no 3-grams
        ("", 2, 0.0, 0.0),
        ("", None, 0.0, 0.0),
        ("X Y Z", 1, 0.0, 0.0),
        ("X Y Z", None, 0.0, 0.0),
        ("B A", 2, 0.0, 0.0),  # no 2-gram matches
        ("B A", None, math.exp(1 - 6 / 2), 0.135),
        ("A B C D E F", 4, 1.0, 1.0),
        ("A B C D E F", None, 1.0, 1.0),
        ("A B C D E F F F", 1, (6 / 8) ** (1 / 2), 0.866),  # longer than the label: no penalty; F counts once
    ],
)
def test_sentence_bleu_by_hand(prediction: str, k: int | None, expected: float, rounded: float) -> None:
    value = sentence_bleu(prediction.split(), list("ABCDEF"), k)
    assert value == pytest.approx(expected, abs=1e-12)
    assert value == pytest.approx(rounded, abs=1e-3)


def test_sentence_bleu_takes_characters_and_ids() -> None:
    assert sentence_bleu(list("今天好"), list("今天很好"), k=1) == pytest.approx(math.exp(1 - 4 / 3))
    assert sentence_bleu([5, 7], [5, 7]) == 1


def test_sentence_bleu_of_a_very_long_sentence_does_not_count_every_length() -> None:
    tokens = [number % 97 for number in range(10_000)]
    assert sentence_bleu(tokens, tokens) == 1


def test_sentence_bleu_refuses_texts_and_k_below_one() -> None:
    with pytest.raises(TypeError, match="it compares tokens, and 'A B' is a text"):
        sentence_bleu("A B", ["A", "B"])
    with pytest.raises(ValueError, match="from 1, got 0"):
        sentence_bleu(["A"], ["A"], k=0)
