"""Markov chains against the matrix written out, every path walked, and small ones by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor
from two_ranks import bare_trainer

from datamodules.streams import CompleteStream
from lm.markov import MarkovChain
from lm.ngram import NGramModel
from lm.smoothing import KneserNey, Laplace, RelativeFrequency, Smoothing

SMOOTHINGS = [RelativeFrequency(), Laplace([1.0, 2.0]), KneserNey()]


def bigrams(text: list[int], smoothing: Smoothing, vocab_size: int) -> NGramModel:
    model = NGramModel(vocab_size, 2, smoothing)
    bare_trainer(1, max_epochs=1).fit(model, CompleteStream(np.array(text), 1, 50))
    return model


def matrix(model: NGramModel) -> Tensor:
    """P(j | i), `(m, m)`."""
    return model.distribution(torch.arange(model.vocab_size)[:, None])


TEXT = (torch.rand(150, generator=torch.Generator().manual_seed(0)).square() * 6).long().tolist()


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
def test_steps_in_both_directions_are_powers_of_the_matrix(smoothing: Smoothing) -> None:
    model = bigrams(TEXT, smoothing, 7)  # the last id is never seen
    chain, transitions = MarkovChain.of(model), matrix(model)
    prior = torch.bincount(torch.tensor(TEXT[1:]), minlength=7) / (len(TEXT) - 1)
    for steps in (0, 1, 2, 5):
        power = torch.linalg.matrix_power(transitions, steps)
        for token in range(6):
            torch.testing.assert_close(chain.after(token, steps), power[token])
            joint = power[:, token] * prior
            torch.testing.assert_close(chain.before(token, steps), joint / joint.sum())


@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("length", [2, 3, 5])
def test_the_most_likely_sequence_is_the_best_of_all(smoothing: Smoothing, length: int) -> None:
    model = bigrams(TEXT[:40], smoothing, 7)
    chain, transitions = MarkovChain.of(model), matrix(model)
    for first, last in [(0, 0), (0, 5), (3, 1), (6, 2), (2, 6)]:
        best = max(
            math.prod(float(transitions[i, j]) for i, j in itertools.pairwise([first, *between, last]))
            for between in itertools.product(range(7), repeat=length - 2)
        )
        if best == 0:
            with pytest.raises(ValueError, match=f"no sequence of {length} tokens leads there; smooth the model"):
                chain.most_likely(first, last, length)
            continue
        found, log_prob = chain.most_likely(first, last, length)
        assert (found[0], found[-1], len(found)) == (first, last, length)
        assert log_prob == pytest.approx(math.log(best))
        assert math.prod(float(transitions[i, j]) for i, j in itertools.pairwise(found)) == pytest.approx(best)


def test_by_hand() -> None:
    """0 goes to 1 twice in three times and to 2 once; 1 goes to 0, 2 to 3, and 3 to 0."""
    chain = MarkovChain.of(bigrams([0, 1, 0, 2, 3, 0, 1, 0], RelativeFrequency(), 4))
    assert chain.after(0, 1).tolist() == pytest.approx([0, 2 / 3, 1 / 3, 0])
    assert chain.after(0, 2).tolist() == pytest.approx([2 / 3, 0, 0, 1 / 3])
    assert chain.before(0, 1).tolist() == pytest.approx([0, 2 / 3, 0, 1 / 3])  # before 0 stood 1 twice and 3 once
    found, log_prob = chain.most_likely(0, 0, 4)
    assert found == [0, 2, 3, 0]
    assert log_prob == pytest.approx(math.log(1 / 3))


def test_what_makes_no_chain_is_refused() -> None:
    with pytest.raises(ValueError, match=r"its model has an order of 2, and this one of 3; train with model.order 2"):
        MarkovChain.of(NGramModel(4, 3))
    with pytest.raises(ValueError, match="its model has counted nothing; train it first"):
        MarkovChain.of(NGramModel(4, 2))
    chain = MarkovChain.of(bigrams([0, 1, 0, 1, 2], RelativeFrequency(), 4))
    with pytest.raises(ValueError, match="token 3 cannot follow 1 steps after another"):
        chain.before(3, 1)
    with pytest.raises(ValueError, match="steps are a count from 0, got -1"):
        chain.after(0, -1)
    with pytest.raises(ValueError, match="has at least 2 tokens, got a length of 1"):
        chain.most_likely(0, 0, 1)
