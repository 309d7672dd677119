"""Models small enough to look at every translation: tables of next-token probabilities that remember two tokens."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mt.search import Search, SearchOutput
from mt.step import Special, StepOutput

BOS, EOS, PAD, UNK, A, B = range(6)
VOCAB = 6
WORDS = (UNK, A, B)
SPECIAL = Special(beginning=BOS, end=EOS, padding=PAD, unknown=UNK)


class Past(NamedTuple):
    previous: Tensor
    nothing: None = None


class Tables:
    """log p(token | sentence, the two tokens before), `(sentences, vocab, vocab, vocab)`; attention depends on the same.

    Every sum is of one row, and every look-up exact, so that a row's numbers cannot depend on the other rows.
    """

    def __init__(self, log_prob: Tensor, attention: Tensor | None = None) -> None:
        self.log_prob, self.attention = log_prob, attention
        self.sentences = len(log_prob)
        self.calls = 0

    @classmethod
    def random(cls, sentences: int, seed: int = 0, sharpness: float = 1.5, source_time: int = 4) -> "Tables":
        generator = torch.Generator().manual_seed(seed)
        shape = (sentences, VOCAB, VOCAB)
        log_prob = torch.randn(*shape, VOCAB, generator=generator, dtype=torch.float64) * sharpness
        attention = torch.randn(*shape, source_time, generator=generator, dtype=torch.float64)
        return cls(log_prob.log_softmax(-1), (attention * 3).softmax(-1))

    @classmethod
    def after_last(cls, rows: dict[int, dict[int, float]]) -> "Tables":
        """One sentence, by hand: the probabilities of what follows the last token; what is not named is impossible."""
        table = torch.zeros(1, VOCAB, VOCAB, VOCAB, dtype=torch.float64)
        for last, following in rows.items():
            for token, probability in following.items():
                table[0, :, last, token] = probability
        return cls(table.log())

    def only(self, sentence: int) -> "Tables":
        attention = None if self.attention is None else self.attention[sentence : sentence + 1]
        return Tables(self.log_prob[sentence : sentence + 1], attention)

    def start(self, rows: int) -> Any:
        return (Past(torch.full((rows,), PAD)), ())

    def step(self, tokens: Tensor, state: Any) -> StepOutput:
        self.calls += 1
        sentence = torch.arange(len(tokens)) // (len(tokens) // self.sentences)
        place = (sentence, state[0].previous, tokens)
        attention = None if self.attention is None else self.attention[place]
        return StepOutput(self.log_prob[place], (Past(tokens), ()), attention)

    def search(self, search: Search, max_length: int | Sequence[int], **settings: Any) -> SearchOutput:
        return search(self.step, self.start(self.sentences), self.sentences, SPECIAL, max_length, **settings)

    def log_probs(self, tokens: Sequence[int], sentence: int = 0) -> list[float]:
        """Of each token of one translation, looked up one by one."""
        read = [PAD, BOS, *tokens]
        return [float(self.log_prob[sentence, read[i], read[i + 1], token]) for i, token in enumerate(tokens)]

    def coverage(self, tokens: Sequence[int], sentence: int = 0) -> list[float]:
        """What each source position has got of the attention of one translation."""
        assert self.attention is not None
        read = [PAD, BOS, *tokens]
        rows = [self.attention[sentence, read[i], read[i + 1]].tolist() for i in range(len(tokens))]
        return [sum(column) for column in zip(*rows, strict=True)]


Score = Callable[[Tables, Sequence[int], int], float]


def length_score(alpha: float, offset: float = 0.0, coverage: float = 0.0, source_length: int | None = None) -> Score:
    """The score written out for one translation."""

    def score(model: Tables, tokens: Sequence[int], sentence: int) -> float:
        value = sum(model.log_probs(tokens, sentence)) / math.pow((offset + len(tokens)) / (offset + 1), alpha)
        if coverage:
            covered = model.coverage(tokens, sentence)[:source_length]
            value += coverage * sum(math.log(min(share, 1.0)) for share in covered)
        return value

    return score


def all_translations(max_length: int) -> Iterator[tuple[int, ...]]:
    """Those that end within the maximum length, and those that it cuts."""
    for length in range(max_length):
        yield from ((*words, EOS) for words in product(WORDS, repeat=length))
    yield from product(WORDS, repeat=max_length)


def brute_force(
    model: Tables,
    max_length: int,
    score: Score,
    sentence: int = 0,
    allowed: Callable[[tuple[int, ...]], bool] = lambda _: True,
) -> list[tuple[tuple[int, ...], float]]:
    """Every allowed translation and its score, the best first; those that are cut come last."""
    scored = [(tokens, score(model, tokens, sentence)) for tokens in all_translations(max_length) if allowed(tokens)]
    return sorted(scored, key=lambda item: (item[0][-1] != EOS, -item[1]))


def texts(output: SearchOutput, sentence: int = 0) -> list[tuple[int, ...]]:
    """The translations of a sentence without their padding; places without one are left out."""
    rows = zip(output.tokens[sentence].tolist(), output.lengths[sentence].tolist(), strict=True)
    return [tuple(tokens[:length]) for tokens, length in rows if length]


def p_value(counts: Tensor, expected: Tensor) -> float:
    """Of a χ² test; categories that are expected fewer than 5 times count together."""
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    observed, wanted = observed[wanted > 0], wanted[wanted > 0]
    statistic = ((observed - wanted).square() / wanted).sum()
    return float(torch.special.gammaincc(torch.tensor((len(wanted) - 1) / 2, dtype=torch.float64), statistic.double() / 2))
