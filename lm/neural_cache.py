"""The neural cache: a word is likely where the network was in a like state when it was read before."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datamodules.streams import Window
from lm.evaluation import Evaluation, Reader, Reading, StaticEvaluation, Text, check_reads_on
from lm.module import LanguageModel
from lm.precision import wide

SCORES_AT_ONCE = 2**22
"""Products of two states, over all lanes, that exist at a time: 16 MiB in fp32."""


@dataclass(kw_only=True)
class NeuralCache(Evaluation):
    """Mixes the model's distribution with one over the words just read (Grave et al. 2017, §3).

        p(w) = (1 − λ)·p_model(w) + λ·Σ_i softmax_i(θ h_i·h_t)·1[w_{i+1} = w]

    The sum is over the N positions before t, those of earlier windows among them; h is what the last layer says before dropout.
    At the first position, with nothing before it, p is the model's. Every lane has a cache of its own, so that the lanes of an
    evaluation should be few: data.evaluation_lanes 1 for the perplexity of the text as a whole.

    The defaults are those of Merity et al. (2017) for WikiText-2. On other data, take the best on the validation text.

    Args:
        theta: θ, how much more like states count; 0 counts all words of the cache alike.
        weight: λ, the share of the cache; 0 leaves the model as it is.
        window: N, positions that the cache holds.
        base: how the model itself reads; null for as it was trained.

    Raises:
        ValueError: if an argument is out of its range.
    """

    theta: float = 0.662
    weight: float = 0.1279
    window: int = 3785
    base: Evaluation | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.theta < math.inf:
            raise ValueError(f"NeuralCache: theta scales products of states, a number from 0, got {self.theta}")
        if not 0 <= self.weight < 1:
            raise ValueError(f"NeuralCache: weight is the share of the cache, from 0 to below 1, got {self.weight}")
        if self.window < 1:
            raise ValueError(f"NeuralCache: window counts positions from 1, got {self.window}")

    def begin(self, model: LanguageModel, text: Text) -> Reader:
        """See Evaluation; a cache that the text of a lane cannot fill is refused."""
        check_reads_on(model, "NeuralCache")
        length = text.in_order("NeuralCache").lane_length
        if self.window > length:
            raise ValueError(
                f"NeuralCache: the window of {self.window} positions is longer than the text of a lane, which has {length}: set"
                " model.evaluation.window to less, or data.evaluation_lanes to fewer"
            )
        read = (self.base or StaticEvaluation()).begin(model, text)
        past: tuple[Tensor, Tensor] | None = None

        def look(window: Window) -> Reading:
            nonlocal past
            reading = read(window)
            new = (reading.raw.to(wide(reading.raw.dtype)), window.targets)
            states, words = new if past is None else (torch.cat(parts, dim=1) for parts in zip(past, new, strict=True))
            nll = self.mixed(reading.nll, log_prob_in_cache(states, words, window.targets.shape[1], self.theta, self.window))
            if past is None:
                nll[:, 0] = reading.nll[:, 0]
            past = (states[:, -self.window :], words[:, -self.window :])
            return Reading(nll, None, reading.raw)

        return look

    def mixed(self, nll: Tensor, copied: Tensor) -> Tensor:
        """−log((1 − λ)·p_model + λ·p_cache) from −log p_model and log p_cache, of any one shape."""
        share = math.log(self.weight) if self.weight else -math.inf
        return -torch.logaddexp(math.log1p(-self.weight) - nll, share + copied)


def log_prob_in_cache(states: Tensor, words: Tensor, time: int, theta: float, window: int) -> Tensor:
    """log p_cache of the words after the last positions of a text, as NeuralCache defines it.

    Args:
        states: h of all positions, `(lanes, positions, features)` in fp32 at least.
        words: the word after each, `(lanes, positions)`.
        time: how many positions, the last ones, are asked about.
        theta: θ.
        window: how many positions before each its cache holds.

    Returns:
        `(lanes, time)`: −inf where the cache does not hold the word, nan where it is empty, at the first position of all.
    """
    lanes, length, _ = states.shape
    rows = max(1, SCORES_AT_ONCE // (lanes * min(length, window + time)))
    found = []
    for start in range(length - time, length, rows):
        stop = min(start + rows, length)
        begin = max(0, start - window)
        asking = torch.arange(start, stop, device=states.device)[:, None]
        held = torch.arange(begin, stop, device=states.device)
        outside = (held >= asking) | (held < asking - window)
        with torch.autocast(states.device.type, enabled=False):  # exponentials of products in bf16 would be off by half
            scores = theta * states[:, start:stop] @ states[:, begin:stop].mT
        scores.masked_fill_(outside, -math.inf)
        others = words[:, start:stop, None] != words[:, None, begin:stop]
        found.append(scores.masked_fill(others, -math.inf).logsumexp(dim=-1) - scores.logsumexp(dim=-1))
    return torch.cat(found, dim=1)
