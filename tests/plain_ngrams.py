"""n-gram probabilities as slowly and plainly as one would write them down, to compare with."""

import math
from collections import Counter
from collections.abc import Sequence

Ids = Sequence[int]


def counted(texts: Sequence[Ids], length: int) -> Counter[tuple[int, ...]]:
    """The n-grams of a length that end after the first token of a text, which nothing predicts."""
    ends = [(text, end) for text in texts for end in range(max(2, length), len(text) + 1)]
    return Counter(tuple(text[end - length : end]) for text, end in ends)


def laplace(texts: Sequence[Ids], context: Ids, token: int, m: int, epsilons: Sequence[float]) -> float:
    """The equations of the notes, one order after another."""
    probability = 1 / m
    for length, epsilon in enumerate(epsilons, start=1):
        if length - 1 > len(context):
            break
        before = tuple(context[len(context) - length + 1 :])
        seen = counted(texts, length)
        n = sum(count for n_gram, count in seen.items() if n_gram[:-1] == before)
        if math.isinf(epsilon) or n + epsilon == 0:
            continue
        probability = (seen[(*before, token)] + epsilon * probability) / (n + epsilon)
    return probability


def discounts(counts: Counter[tuple[int, ...]]) -> list[float]:
    """D of a count of 0, 1, 2 and more."""
    n = [sum(count == r for count in counts.values()) for r in range(5)]
    if min(n[1:]) == 0:
        return [0, 0.5, 1, 1.5]
    y = n[1] / (n[1] + 2 * n[2])
    found = [0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]]
    return found if all(0 <= d <= r for r, d in enumerate(found)) else [0, 0.5, 1, 1.5]


def kneser_ney(texts: Sequence[Ids], context: Ids, token: int, m: int, order: int) -> float:
    """Modified Kneser-Ney by its definition, from the highest order down."""
    highest, longer = len(context) + 1 == order, counted(texts, min(order, len(context) + 2))
    seen = longer if highest else Counter(n_gram[1:] for n_gram in longer)
    own = {n_gram[-1]: count for n_gram, count in seen.items() if n_gram[:-1] == tuple(context)}
    shorter = 1 / m if not context else kneser_ney(texts, context[1:], token, m, order)
    if not own:
        return shorter
    d = discounts(seen)
    total = sum(own.values())
    left = sum(d[min(count, 3)] for count in own.values())
    return (max(own.get(token, 0) - d[min(own.get(token, 0), 3)], 0) + left * shorter) / total
