"""n-gram models beside NLTK's: `python -m experiments.benchmark counts`."""

import importlib.util
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from experiments.benchmark.alternation import text_data
from experiments.benchmark.console import table_console
from lm.ngram import NGramModel
from lm.ngram_counts import NGramCounts
from lm.smoothing import KneserNey, Laplace, Smoothing

DISCOUNT = 0.1
"""NLTK's own."""


class Same(NamedTuple):
    """A smoothing that both define.

    Attributes:
        name: of it.
        ours: from the order and the size of the vocabulary.
        theirs: the same, a model of nltk.lm.
        scored: tokens that NLTK is given time for.
    """

    name: str
    ours: Callable[[int, int], Smoothing]
    theirs: Callable[[int], Any]
    scored: int


class Row(NamedTuple):
    """What was measured.

    Attributes:
        name: of the smoothing.
        counting: tokens of the training text a second of processor time, ours and NLTK's.
        scoring: tokens of the held-out text a second, ours and NLTK's.
        ratio: how many times as fast ours do both, counting the training text and scoring the held-out one.
        difference: the largest between two probabilities of a token whose context was seen.
    """

    name: str
    counting: tuple[float, float]
    scoring: tuple[float, float]
    ratio: float
    difference: float


def counts(text: str | None = None, order: int = 3, rounds: int = 5, share: float = 1.0) -> None:
    """Count a text and score its last tenth with n-gram models of ours and of NLTK's, which have to give the same probabilities.

    Ours are timed over all of the text, the median of some rounds; NLTK's once, and on the first held-out tokens alone. Times are
    of the processor. Expect two minutes.

    Args:
        text: file whose last tenth of lines is held out; without one, the English of Python's manual.
        order: n, from 2.
        rounds: how often ours are timed.
        share: of the tokens that NLTK is given to score, to take less time.
    """
    if importlib.util.find_spec("nltk") is None:
        raise ImportError("benchmark: there is no NLTK to compare with; pip install 'unroll[benchmark]'")
    if order < 2:
        raise ValueError(f"benchmark: models of an order from 2 are compared, got {order}")
    data = text_data(text, lanes=1, steps=1, tokens=None)
    train, held_out = (np.asarray(data.tokens(split), dtype=np.int64) for split in ("train", "validation"))
    rows = [compare(same, train, held_out, order, data.vocab_size, rounds, share) for same in smoothings()]
    console = table_console()
    console.print(f"{len(train):,} tokens counted, {len(held_out):,} held out, {data.vocab_size:,} entries, order {order}")
    console.print(table(rows))


def smoothings() -> list[Same]:
    """What both define. NLTK's Kneser-Ney has one discount, and none for single tokens."""
    from nltk import lm

    return [
        Same("relative frequency", lambda order, _: Laplace([0.0] * order), lm.MLE, 20_000),
        Same("add one", lambda order, size: Laplace([*[math.inf] * (order - 1), float(size)]), lm.Laplace, 20_000),
        Same("Kneser-Ney", lambda order, _: KneserNey([0.0, *[DISCOUNT] * (order - 1)]), lm.KneserNeyInterpolated, 100),
    ]


def compare(
    same: Same, train: np.ndarray, held_out: np.ndarray, order: int, vocab_size: int, rounds: int = 1, share: float = 1.0
) -> Row:
    """Time one smoothing, and compare the probabilities of held-out tokens that have a whole context before them."""
    model = NGramModel(vocab_size, order, same.ours(order, vocab_size))
    text, unseen = (torch.from_numpy(ids)[None] for ids in (train, held_out))
    counting, scoring = [], []
    for _ in range(rounds):
        started = time.process_time()
        model.counts = NGramCounts.of(text, len(train) - 1, order, vocab_size)
        _ = model.interpolations
        counting.append(time.process_time() - started)
        started = time.process_time()
        ours = model.probabilities(unseen)[0]
        scoring.append(time.process_time() - started)

    started = time.process_time()
    theirs = fitted(same.theirs(order), train, order, vocab_size)
    counted = time.process_time() - started
    ends = range(order - 1, min(len(held_out), order - 1 + max(1, round(share * same.scored))))
    asked = [(str(held_out[end]), names(held_out[end - order + 1 : end])) for end in ends]
    started = time.process_time()
    scored = [theirs.score(word, context) for word, context in asked]
    took = time.process_time() - started
    seen = [bool(theirs.counts[context].N()) for _, context in asked]
    ours_count, ours_score = statistics.median(counting), statistics.median(scoring)
    return Row(
        same.name,
        (len(train) / ours_count, len(train) / counted),
        (len(held_out) / ours_score, len(ends) / took),
        (counted + took * len(held_out) / len(ends)) / (ours_count + ours_score),
        largest(ours[list(ends)], scored, seen),
    )


def fitted(model: Any, train: np.ndarray, order: int, vocab_size: int) -> Any:
    """NLTK's model of the n-grams of a text that end after its first token, over all of the vocabulary."""
    words = names(train)
    n_grams = [words[max(0, end - n) : end] for end in range(2, len(words) + 1) for n in range(1, min(order, end) + 1)]
    model.vocab.update(names(range(1, vocab_size)))
    model.vocab.unk_label = "0"  # which NLTK has in any vocabulary
    model.fit([n_grams])
    return model


def names(ids: Sequence[int] | np.ndarray | range) -> tuple[str, ...]:
    """Ids as words, which NLTK wants."""
    return tuple(map(str, ids))


def largest(ours: Tensor, theirs: Sequence[float], seen: Sequence[bool]) -> float:
    """The largest difference where the context was seen; elsewhere NLTK's relative frequency is not defined."""
    return float((ours - torch.tensor(theirs, dtype=ours.dtype)).abs()[torch.tensor(seen)].max())


def table(rows: Sequence[Row]) -> Table:
    """Thousands of tokens a second, ours beside NLTK's."""
    columns = ("smoothing", "counting", "NLTK", "ratio", "scoring", "NLTK", "ratio", "of both", "difference")
    shown = Table(*columns, title="thousand tokens/s of processor time")
    for row in rows:
        pairs = (row.counting, row.scoring)
        speeds = [cell for ours, nltk in pairs for cell in (f"{ours / 1e3:,.0f}", f"{nltk / 1e3:,.3g}", f"{ours / nltk:,.0f}")]
        shown.add_row(row.name, *speeds, f"{row.ratio:,.0f}", f"{row.difference:.1e}")
    return shown
