"""MaskedData: windows of a text in which some tokens are hidden, for a model that reads on both sides of them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import torch

from datamodules.language import LanguageData
from datamodules.streams import Stream, Window


class MaskedStream(Stream):
    """The windows of another stream, with some of its targets chosen at random; which ones is a function of seed and epoch.

    Of each lane of a window as many are chosen, one at least, so that processes which share a batch have as many to tell.

    Args:
        stream: of the windows.
        rate: share of the targets that are chosen, rounded to whole tokens of a window.
        mask: the token that stands in their place, so that a window is read as its targets are, with those that are to be told
            hidden; None hides none, and leaves a window as a language model reads it, which predicts the same targets.

    Raises:
        ValueError: if the rate is no share.
    """

    def __init__(self, stream: Stream, rate: float, mask: int | None) -> None:
        super().__init__(stream.tokens, stream.lanes, stream.steps, stream.place)
        if not 0 < rate < 1:
            raise ValueError(f"masking: rate is the share of tokens that are masked, between 0 and 1, got {rate}")
        self.stream, self.rate, self.mask = stream, rate, mask
        self.contiguous = stream.contiguous

    def __len__(self) -> int:
        return len(self.stream)

    def identity(self) -> dict[str, Any]:
        """See EpochLoader."""
        return {**self.stream.identity(), "rate": self.rate, "mask": self.mask}

    def batches(self) -> Callable[[int], Window]:
        """See EpochLoader."""
        self.stream.set_epoch(self.epoch)
        read = self.stream.batches()

        def choose(index: int) -> Window:
            window = read(index)
            steps = window.targets.shape[1]
            count = max(1, round(self.rate * steps))
            drawn = np.random.default_rng([self.seed, self.epoch, index]).random((self.lanes, steps))  # for all ranks
            chosen = torch.from_numpy(drawn <= np.partition(drawn, count - 1, axis=1)[:, count - 1 : count])[self.rows]
            tokens = window.tokens if self.mask is None else window.targets.masked_fill(chosen, self.mask)
            real = chosen.float() if window.mask is None else chosen * window.mask
            return Window(tokens, window.targets, real)

        return choose


class MaskedData(LanguageData):
    """A corpus as windows in which some tokens are masked, all others can be read, and the masked ones are to be predicted.

    Masks of the training text are drawn anew every epoch, those of the others are always the same ones.

    Args:
        rate: share of the tokens that are masked.
        hidden: put the mask token in their place. Without, the data is that of a language model, trained on every token, and
            evaluated on the very tokens that would be masked, so that the two can be compared.
        kwargs: those of LanguageData; the tokenizer reserves `<mask>` or `[MASK]`.

    Raises:
        ValueError: if the vocabulary has no such token, the rate is no share, or as LanguageData.
    """

    def __init__(self, rate: float = 0.15, hidden: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.hidden = hidden

    @property
    def mask(self) -> int | None:
        """The token in the place of what is masked."""
        if not self.hidden:
            return None
        if self.tokenizer.mask is None:
            raise ValueError(
                "masking: the vocabulary has no token for what is masked: reserve one, tokenizer.reserved_tokens"
                " [<unk>, <eos>, <mask>]"
            )
        return self.tokenizer.mask

    @cached_property
    def training_stream(self) -> Stream:
        """See LanguageData."""
        stream = super().training_stream
        return MaskedStream(stream, self.rate, self.mask) if self.hidden else stream

    def evaluation_streams(self, split: str) -> list[Stream]:
        """See LanguageData."""
        return [MaskedStream(stream, self.rate, self.mask) for stream in super().evaluation_streams(split)]
