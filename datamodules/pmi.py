"""Word vectors from a text alone: which words stand near which, more often than by chance."""

import numpy as np
import torch
from torch import Tensor

SMOOTHING = 0.75
"""Power of a neighbour's frequency, which makes rare neighbours less surprising (Levy et al. 2015, §3.1)."""


def word_vectors(tokens: np.ndarray, vocab_size: int, size: int, window: int = 5, seed: int = 0) -> np.ndarray:
    """Truncated singular value decomposition of positive pointwise mutual information (Levy & Goldberg 2014, §4).

        PPMI(w, c) = max(0, log [n(w, c) · Σ_c' n(c')^0.75 / (n(w) · n(c)^0.75)]),   PPMI ≈ U Σ Vᵀ,   vectors U Σ^½

    n(w, c) weighs a neighbour at distance d by 1/d, as GloVe does. The vectors are scaled so that their numbers have the
    deviation 1, as those of a new embedding.

    Args:
        tokens: ids of a text, `(tokens,)`.
        vocab_size: entries of the vocabulary.
        size: numbers of a word.
        window: how far a neighbour may be.
        seed: of the randomised decomposition.

    Returns:
        `(vocab_size, size)` of float32.

    Raises:
        ValueError: if there are more numbers than words, or fewer tokens than the window spans.
    """
    if not 0 < size <= vocab_size:
        raise ValueError(f"vectors: a vocabulary of {vocab_size} words gives 1 to {vocab_size} numbers a word, not {size}")
    if not 0 < window < len(tokens):
        raise ValueError(f"vectors: a window of {window} words does not fit a text of {len(tokens)}: give one that is shorter")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, strength, _ = torch.svd_lowrank(positive_pmi(neighbours(tokens, vocab_size, window)), q=size, niter=6)
    vectors = left * strength.sqrt()
    return (vectors / vectors.std()).numpy().astype(np.float32)


def neighbours(tokens: np.ndarray, vocab_size: int, window: int) -> Tensor:
    """n(w, c) as a sparse matrix `(vocab_size, vocab_size)`, the same for either side."""
    counted = torch.zeros(vocab_size, vocab_size, dtype=torch.float64, layout=torch.sparse_coo)
    for distance in range(1, window + 1):
        pairs, counts = np.unique(
            tokens[:-distance].astype(np.int64) * vocab_size + tokens[distance:].astype(np.int64), return_counts=True
        )
        places = torch.from_numpy(np.stack([pairs // vocab_size, pairs % vocab_size]))
        found = torch.sparse_coo_tensor(places, torch.from_numpy(counts / distance), counted.shape, check_invariants=True)
        counted = (counted + found + found.t()).coalesce()
    return counted


def positive_pmi(counted: Tensor) -> Tensor:
    """PPMI of a sparse matrix of counts, sparse itself."""
    frequency = counted.sum(dim=0).to_dense()
    smoothed = frequency**SMOOTHING
    words, others = counted.indices()
    chance = frequency[words] * smoothed[others] / smoothed.sum()
    information = (counted.values() / chance).log()
    kept = information > 0
    return torch.sparse_coo_tensor(counted.indices()[:, kept], information[kept], counted.shape, check_invariants=True)
