"""BLEU of one sentence by hand: unsmoothed, longer n-grams weighing less."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence

NEGLIGIBLE = 64
"""From here on p_n^(1/2^n) is 1 in double precision, for any sentence that fits into memory."""


def sentence_bleu(prediction: Sequence[Hashable], label: Sequence[Hashable], k: int | None = None) -> float:
    """exp(min(0, 1 − len_label / len_prediction)) · Π_{n≤k} p_n^(1/2^n)  (Zhang et al., Dive into Deep Learning, §10.7).

    p_n is the rate of the prediction's n-grams that the label has, each as often at most as it occurs there. Scores differ from
    corpus BLEU, which weighs n-grams of all lengths alike.

    Args:
        prediction: tokens: words, characters or ids.
        label: tokens of the right translation.
        k: longest n-gram to count, or the whole prediction where that is shorter; None for the longest that matches.

    Returns:
        From 0, where nothing matches, to 1, where all does.

    Raises:
        ValueError: if k is not positive.
        TypeError: if a text is given in place of its tokens.
    """
    for tokens in (prediction, label):
        if isinstance(tokens, str):
            raise TypeError(f"sentence_bleu: it compares tokens, and {tokens!r} is a text: split it, or take list(text)")
    if k is not None and k < 1:
        raise ValueError(f"sentence_bleu: k is the length of an n-gram, from 1, got {k}")
    if not prediction:
        return 0.0
    score = math.exp(min(0.0, 1 - len(label) / len(prediction)))
    for n in range(1, min(len(prediction), NEGLIGIBLE if k is None else k) + 1):
        matches = (ngrams(prediction, n) & ngrams(label, n)).total()
        if matches == 0:  # nor will a longer one match
            return score if k is None and n > 1 else 0.0
        score *= (matches / (len(prediction) - n + 1)) ** 0.5**n
    return score


def ngrams(tokens: Sequence[Hashable], n: int) -> Counter[tuple[Hashable, ...]]:
    """How often each run of n tokens occurs."""
    return Counter(tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1))
