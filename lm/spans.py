"""Spans of words, such as the names in a sentence, from tags that say where each begins and goes on."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor
from torchmetrics import Metric

Span = tuple[int, int, str]
"""The first word, the one behind the last, and the kind."""


def is_span_tagging(tags: Collection[str]) -> bool:
    """Whether tags are B-KIND, I-KIND and O, and not O alone."""
    return all(tag == "O" or tag.startswith(("B-", "I-")) for tag in tags) and set(tags) != {"O"}


def spans(tags: Sequence[str]) -> set[Span]:
    """The spans of a sentence, read as CoNLL's own evaluation reads them, which takes both of its taggings.

    A span begins at B-KIND, and at an I-KIND that has no word of its kind before it: in IOB1, where B- only parts neighbours,
    most spans begin so.
    """
    found: set[Span] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        mark, _, name = tag.partition("-")
        if kind and (mark != "I" or name != kind):
            found.add((start, place, kind))
            kind = ""
        if mark != "O" and not kind:
            start, kind = place, name
    return found


class SpanScores(Metric):
    """Precision, recall and F1 of whole spans, exact over batches and ranks."""

    full_state_update = False
    right: Tensor
    true: Tensor
    told: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "true", "told"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, true: Sequence[str], told: Sequence[str]) -> None:
        """Add a sentence, by its true tags and those it is told to have."""
        expected, found = spans(true), spans(told)
        self.right += len(expected & found)
        self.true += len(expected)
        self.told += len(found)

    def compute(self) -> Mapping[str, Tensor]:
        """`span_precision`, `span_recall` and `span_f1`; 0 where there is nothing to divide by."""
        right = self.right.double()
        return {
            "span_precision": (right / self.told.clamp(min=1)).float(),
            "span_recall": (right / self.true.clamp(min=1)).float(),
            "span_f1": (2 * right / (self.told + self.true).clamp(min=1)).float(),
        }
