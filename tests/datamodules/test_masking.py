"""Windows with hidden tokens: which are hidden, and that the rest is what it was."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import GivenLines

from datamodules.masking import MaskedData, MaskedStream
from datamodules.recipes import Words
from datamodules.streams import CompleteStream, Place, SequentialStream, Window

TOKENS = np.arange(3, 503)
MASK = 0
WITH_MASK = Words(reserved_tokens=("<unk>", "<eos>", "<mask>"))
MakeMasked = Callable[..., MaskedData]


@pytest.fixture
def make(tmp_path: Path) -> MakeMasked:
    def make(train: Sequence[str], validation: Sequence[str] = (), **settings: Any) -> MaskedData:
        settings = {"tokenizer": WITH_MASK, "lanes": 2, "steps": 10, **settings}
        return MaskedData(source=GivenLines(train, validation), cache=str(tmp_path / "cache"), **settings)

    return make


def places(window: Window) -> torch.Tensor:
    assert window.mask is not None
    return window.mask.bool()


@pytest.mark.parametrize("mask", [MASK, None])
def test_hidden_tokens_are_targets_and_the_rest_is_read(mask: int | None) -> None:
    plain = CompleteStream(TOKENS, 3, 20)
    for window, original in zip(MaskedStream(plain, 0.15, mask), plain, strict=True):
        assert window.mask is not None
        assert torch.equal(window.targets, original.targets)
        real = torch.ones_like(window.mask) if original.mask is None else original.mask
        assert not (window.mask * (1 - real)).any()  # padding is nothing to tell
        if mask is None:
            assert torch.equal(window.tokens, original.tokens)
        else:
            shown = window.tokens != mask
            assert torch.equal(window.tokens[shown], window.targets[shown])
            assert torch.equal(places(window), ~shown & real.bool())


def test_of_each_lane_as_many_are_hidden_and_one_at_least() -> None:
    for rate, expected in ((0.15, 3), (0.01, 1), (0.5, 10)):
        counts = {
            int(count) for window in MaskedStream(SequentialStream(TOKENS, 4, 20), rate, MASK) for count in places(window).sum(1)
        }
        assert counts == {expected}


def test_masks_are_drawn_anew_every_epoch_and_the_same_again_from_the_same_seed() -> None:
    def read(epoch: int, seed: int = 0) -> list[torch.Tensor]:
        stream = MaskedStream(SequentialStream(TOKENS, 4, 20, Place(seed), random_offset=False), 0.15, MASK)
        stream.set_epoch(epoch)
        return [places(window) for window in stream]

    first = read(0)
    assert all(torch.equal(*pair) for pair in zip(first, read(0), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, read(1), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(first, read(0, seed=1), strict=True))
    assert not torch.equal(first[0], first[1])
    often = torch.stack([mask for epoch in range(60) for mask in read(epoch)]).float().mean(dim=(0, 1))
    assert 0.05 < often.min() < often.max() < 0.25  # every place has its turn


def test_processes_hide_together_what_one_hides() -> None:
    alone = MaskedStream(SequentialStream(TOKENS, 4, 20), 0.15, MASK)
    ranks = [MaskedStream(SequentialStream(TOKENS, 4, 20, Place(rank=rank, world_size=2)), 0.15, MASK) for rank in range(2)]
    for whole, *parts in zip(alone, *ranks, strict=True):
        assert torch.equal(whole.tokens, torch.cat([part.tokens for part in parts]))


def test_it_goes_on_where_it_stopped_and_not_in_other_masks() -> None:
    stream = MaskedStream(SequentialStream(TOKENS, 4, 20), 0.15, MASK)
    stream.set_epoch(1)
    windows = list(stream)
    state = stream.state_dict() | {"position": 3}
    again = MaskedStream(SequentialStream(TOKENS, 4, 20), 0.15, MASK)
    again.load_state_dict(state)
    again.set_epoch(1)
    assert all(torch.equal(one.tokens, other.tokens) for one, other in zip(windows[3:], again, strict=True))
    with pytest.raises(ValueError, match=r"rate=0.15, and here it is 0.3"):
        MaskedStream(SequentialStream(TOKENS, 4, 20), 0.3, MASK).load_state_dict(state)


def test_data_hides_in_every_split_or_shows_the_same_tokens_to_a_language_model(make: MakeMasked) -> None:
    lines = ["a b c d e f g h i j"] * 9
    hidden, shown = make(lines, lines[:4]), make(lines, lines[:4], hidden=False)
    mask = hidden.tokenizer.mask
    assert all(
        mask in window.tokens.flatten().tolist()
        for loader in (hidden.train_dataloader(), *hidden.val_dataloader())
        for window in loader
    )
    for one, other in zip(hidden.val_dataloader()[0], shown.val_dataloader()[0], strict=True):
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(places(one), places(other))
        assert mask not in other.tokens.flatten().tolist()
    assert all(window.mask is None for window in shown.train_dataloader())  # it learns from every token


def test_a_vocabulary_without_a_mask_and_a_rate_that_is_none_are_refused(make: MakeMasked) -> None:
    with pytest.raises(ValueError, match=r"no token for what is masked: reserve one"):
        make(["a b c d"] * 9, tokenizer=Words()).train_dataloader()
    for rate in (0.0, 1.0):
        with pytest.raises(ValueError, match=rf"between 0 and 1, got {rate}"):
            make(["a b c d"] * 9, rate=rate).train_dataloader()
