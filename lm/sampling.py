"""Text from a language model: warm up over a prefix, then choose one token after another."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lm.network import NetworkState

Step = Callable[[Tensor, NetworkState | None], tuple[Tensor, NetworkState]]
"""Tokens `(rows, time)` and the state before them -> log-probabilities of the next `(rows, vocab)`, the state after."""


@dataclass
class Sampling:
    """How the next token is chosen.

    Args:
        temperature: divides the log-probabilities before they are normalised again; 0 takes the most probable token (greedy).
        top_k: keep the k most probable tokens (Fan et al. 2018, §5.4).
        top_p: keep the fewest tokens that together have this probability (nucleus sampling, Holtzman et al. 2020, §3.1).
        seed: of the draws; row i of a batch gets the same text whatever the other rows hold.

    Raises:
        ValueError: if an argument is out of its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < torch.inf:
            raise ValueError(f"sampling: a temperature is a number from 0, which is greedy, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"sampling: top_k keeps at least 1 token, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"sampling: top_p is a probability above 0, got {self.top_p}")
        if self.seed < 0:
            raise ValueError(f"sampling: a seed is a number from 0, got {self.seed}")

    def choose(self, log_prob: Tensor, draws: Tensor) -> Tensor:
        """The next token of each row, by inversion of the cumulative distribution.

        Args:
            log_prob: `(rows, vocab)`; −inf for what may not be chosen.
            draws: `(rows,)` uniform in [0, 1).

        Returns:
            `(rows,)` ids.
        """
        if self.temperature == 0:
            return log_prob.argmax(dim=-1)
        # In double precision and from the largest down, so that no temperature takes the most probable token to −inf.
        below = log_prob.to(widest(log_prob.device)) - log_prob.amax(dim=-1, keepdim=True)
        ordered, ids = (below / self.temperature).sort(dim=-1, descending=True, stable=True)
        if self.top_k is not None:
            ordered[:, self.top_k :] = -torch.inf
        probabilities = ordered.softmax(dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities
        if self.top_p is not None:
            probabilities = probabilities.where(before < self.top_p, 0.0)
        cumulative = probabilities.cumsum(dim=-1)
        place = torch.searchsorted(cumulative, draws[:, None] * cumulative[:, -1:], right=True)
        # Rounding may point one past the last token that has a probability.
        last = (probabilities > 0).sum(dim=-1, keepdim=True) - 1
        return ids.gather(1, place.minimum(last)).squeeze(1)


def generate(
    step: Step,
    prefixes: Sequence[Sequence[int]],
    length: int,
    sampling: Sampling,
    *,
    end: int | None = None,
    banned: Sequence[int] = (),
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """Continuations of prefixes of any lengths, as one batch.

    Args:
        step: the model.
        prefixes: ids, at least one each.
        length: tokens of a continuation at most.
        sampling: how tokens are chosen.
        end: the token that ends a continuation; it is not part of what is returned.
        banned: tokens that are never chosen.
        device: of the model.

    Raises:
        ValueError: if a prefix is empty, or the length is not positive.
    """
    if length < 1:
        raise ValueError(f"generate: a continuation has at least 1 token, got length {length}")
    if not all(prefixes):
        raise ValueError("generate: a prefix has no token; give at least the one that begins a text")
    if not prefixes:
        return []
    lengths = torch.tensor([len(prefix) for prefix in prefixes], device=device)
    rows, longest = len(prefixes), int(lengths.max())
    padded = torch.zeros(rows, longest, dtype=torch.long)
    for row, prefix in enumerate(prefixes):
        padded[row, : len(prefix)] = torch.tensor(prefix)
    padded = padded.to(device)
    draws = torch.stack([uniform(length, sampling.seed, row) for row in range(rows)]).to(device, widest(device))

    # What all prefixes have runs at once; from there every row is either still reading or already writing.
    shared = int(lengths.min())
    log_prob, state = step(padded[:, :shared], None)
    written: list[list[int]] = [[] for _ in prefixes]
    ended = [False] * rows
    for position in range(shared, longest + length):
        count = (position - lengths).clamp(0, length - 1)
        log_prob[:, list(banned)] = -torch.inf
        chosen = sampling.choose(log_prob, draws.gather(1, count[:, None]).squeeze(1))
        reading = position < lengths
        tokens = padded[:, position].where(reading, chosen) if position < longest else chosen
        for row, token in enumerate(tokens.tolist()):
            if not reading[row] and not ended[row]:
                ended[row] = token == end or len(written[row]) == length
                if not ended[row]:
                    written[row].append(token)
        if all(ended) or all(len(text) == length for text in written):
            break
        log_prob, state = step(tokens[:, None], state)
    return written


def uniform(count: int, seed: int, row: int) -> Tensor:
    """`(count,)` draws from [0, 1), a function of the seed and the row alone."""
    return torch.from_numpy(np.random.default_rng([seed, row]).random(count))


def widest(device: torch.device | str) -> torch.dtype:
    """The most precise type of a device: Apple's GPUs have no float64."""
    return torch.float32 if torch.device(device).type == "mps" else torch.float64
