"""Spans from tags, by hand and against a plain reading of CoNLL's rules."""

import itertools

import pytest
import torch

from lm.spans import SpanScores, is_span_tagging, spans


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", {(0, 2, "PER"), (3, 4, "LOC")}),
        ("B-PER B-PER", {(0, 1, "PER"), (1, 2, "PER")}),
        ("I-PER I-PER B-PER", {(0, 2, "PER"), (2, 3, "PER")}),  # IOB1
        ("B-PER I-LOC I-LOC", {(0, 1, "PER"), (1, 3, "LOC")}),
        ("O O", set()),
        ("", set()),
        ("B-a-b I-a-b", {(0, 2, "a-b")}),
    ],
)
def test_spans_by_hand(tags: str, expected: set[tuple[int, int, str]]) -> None:
    assert spans(tags.split()) == expected


def plainly(tags: tuple[str, ...]) -> set[tuple[int, int, str]]:
    """conlleval's startOfChunk and endOfChunk for B, I and O."""
    found: set[tuple[int, int, str]] = set()
    begun: int | None = None
    previous = ("O", "")
    for place, tag in enumerate([*tags, "O"]):
        mark, _, kind = tag.partition("-")
        ends = previous[0] in "BI" and (mark in "BO" or previous[1] != kind)
        begins = mark == "B" or (mark == "I" and (previous[0] == "O" or previous[1] != kind))
        if ends and begun is not None:
            found.add((begun, place, previous[1]))
            begun = None
        if begins:
            begun = place
        previous = (mark, kind)
    return found


def test_all_sentences_of_five_words_against_the_rules_of_conlleval() -> None:
    for tags in itertools.product(["O", "B-X", "I-X", "B-Y", "I-Y"], repeat=5):
        assert spans(tags) == plainly(tags)


def test_scores_by_hand() -> None:
    scores = SpanScores()
    scores.update(["B-PER", "I-PER", "O", "B-LOC"], ["B-PER", "I-PER", "O", "B-ORG"])  # one of two right, two told
    scores.update(["B-PER", "O", "B-LOC"], ["O", "O", "B-LOC"])  # one of two right, one told
    found = scores.compute()
    assert float(found["span_precision"]) == pytest.approx(2 / 3)
    assert float(found["span_recall"]) == pytest.approx(2 / 4)
    assert float(found["span_f1"]) == pytest.approx(2 * (2 / 3) * (1 / 2) / (2 / 3 + 1 / 2))
    assert torch.equal(SpanScores().compute()["span_f1"], torch.tensor(0.0))


def test_which_tags_are_of_spans() -> None:
    assert is_span_tagging(["B-X", "I-X", "O"])
    assert is_span_tagging(["B-X", "I-X"])
    assert not is_span_tagging(["NOUN", "O"])
    assert not is_span_tagging(["O"])
