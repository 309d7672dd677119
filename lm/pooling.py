"""Pooling: one vector for a text from the states at all of its tokens, read at once or window by window."""

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor

from lm.bidirectional import Bidirectional
from lm.network import NetworkState, RecurrentNetwork, RNNOutput

Pooling = Literal["last", "mean", "max", "concatenated"]


class Pool:
    """What has been read of some texts: the last state, and mean and maximum of all, over the true length of each.

    Args:
        bidirectional: the second half of a state is of the direction that reads from the end, whose last state is at the first
            token.
    """

    def __init__(self, bidirectional: bool) -> None:
        self.bidirectional = bidirectional
        self.last = self.total = self.highest = torch.zeros(0, 0)
        self.lengths = torch.zeros(0)

    def add(self, hidden: Tensor, lengths: Tensor) -> None:
        """Add a window.

        Args:
            hidden: states, `(rows, time, features)`, of the first texts; the others have ended.
            lengths: `(rows,)` how many of them are of the text, one at least.
        """
        real = (torch.arange(hidden.shape[1], device=hidden.device) < lengths[:, None])[:, :, None]
        last = hidden[torch.arange(len(hidden), device=hidden.device), lengths - 1]
        if self.bidirectional:
            ahead, _ = last.chunk(2, dim=1)
            last = torch.cat([ahead, hidden[:, 0].chunk(2, dim=1)[1]], dim=1)
        total, highest = (hidden * real).sum(dim=1), hidden.masked_fill(~real, -torch.inf).amax(dim=1)
        rows = len(hidden)
        if len(self.last):
            total = total + self.total[:rows]
            highest = torch.maximum(highest, self.highest[:rows])
            lengths = lengths + self.lengths[:rows]
        self.last, self.total, self.highest, self.lengths = (
            torch.cat([new, old[rows:]]) if len(old) > rows else new
            for new, old in (
                (last, self.last),
                (total, self.total),
                (highest, self.highest),
                (lengths, self.lengths),
            )
        )

    def result(self, pooling: Pooling) -> Tensor:
        """`(rows, features)`, or three times as many features where last, maximum and mean are concatenated."""
        mean = self.total / self.lengths[:, None]
        vectors = {"last": self.last, "mean": mean, "max": self.highest}
        if pooling == "concatenated":  # in the order of Howard & Ruder 2018, §3.3
            return torch.cat([self.last, self.highest, mean], dim=1)
        return vectors[pooling]


def read_pooled(
    network: RecurrentNetwork,
    tokens: Tensor,
    lengths: Tensor,
    pooling: Pooling,
    window: int | None = None,
    gradient_windows: int | None = None,
) -> tuple[Tensor, RNNOutput]:
    """Read texts, window after window with the state carried and detached, and pool the states.

    Args:
        network: that reads.
        tokens: `(batch, time)` in reading order.
        lengths: `(batch,)`, one at least.
        pooling: what to make of the states.
        window: tokens of a window; None for all.
        gradient_windows: how many windows, the last ones, record a gradient; None for all.

    Returns:
        `(batch, features)`, and what the network said of the last window, whose rows are the longest texts.
    """
    order = lengths.argsort(descending=True, stable=True)
    tokens, lengths = tokens[order], lengths[order]
    longest = int(lengths[0])
    starts = range(0, longest, window or longest)
    without = 0 if gradient_windows is None else len(starts) - gradient_windows
    pool, state = Pool(isinstance(network.layers[-1], Bidirectional)), None
    for number, start in enumerate(starts):
        rows = int((lengths > start).sum())  # texts that have ended are the last ones
        left = (lengths[:rows] - start).clamp(max=starts.step)
        with torch.no_grad() if number < without else nullcontext():
            output: RNNOutput = network(tokens[:rows, start : start + starts.step], first_rows(state, rows), left)
            pool.add(output.hidden, left)
        state = output.state
    return pool.result(pooling)[order.argsort()], output


def first_rows(state: NetworkState | None, rows: int) -> NetworkState | None:
    """The state of the first rows, detached."""
    return state and tuple(tuple(part[:, :rows].detach() for part in layer) for layer in state)
