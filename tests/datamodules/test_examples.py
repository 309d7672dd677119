"""Batches of examples: each comes once, like lengths together, and ranks share them."""

import numpy as np
import pytest

from datamodules.examples import ExampleBatches
from datamodules.streams import ONE_PROCESS, Place

LENGTHS = np.random.default_rng(0).integers(1, 50, 103)
Read = tuple[list[int], float]


def make(place: Place = ONE_PROCESS, **settings: object) -> ExampleBatches[Read]:
    options = {"pool": 5, **settings}
    return ExampleBatches(LENGTHS, LENGTHS, 8, lambda rows, normalizer: (rows.tolist(), normalizer), place, **options)  # type: ignore[arg-type]


def test_every_example_comes_once_an_epoch_and_in_another_order_in_the_next() -> None:
    batches = make()
    assert len(batches) == 13
    first = [rows for rows, _ in batches]
    batches.set_epoch(1)
    second = [rows for rows, _ in batches]
    for epoch in (first, second):
        assert sorted(row for rows in epoch for row in rows) == list(range(103))
        assert len(epoch) == 13
    assert first != second


def test_batches_hold_like_lengths() -> None:
    def padding(batches: ExampleBatches[Read]) -> float:
        rows = [LENGTHS[rows] for rows, _ in batches]
        return sum(int(found.max()) * len(found) for found in rows) / int(LENGTHS.sum())

    assert padding(make(pool=13)) < 1.15 < padding(make(pool=5)) < padding(make(pool=1))


def test_an_evaluation_keeps_the_order() -> None:
    assert [row for rows, _ in make(shuffle=False) for row in rows] == list(range(103))


def test_processes_share_batches_and_their_normalizer() -> None:
    whole, *ranks = (list(make(place)) for place in (Place(), Place(0, 0, 3), Place(0, 1, 3), Place(0, 2, 3)))
    for (rows, normalizer), *parts in zip(whole, *ranks, strict=True):
        assert sorted(row for own, _ in parts for row in own) == sorted(rows)
        assert {value for _, value in parts} == {normalizer} == {float(LENGTHS[rows].sum())}


def test_the_normalizer_is_that_of_all_batches_of_a_step() -> None:
    whole = list(make())
    accumulated = list(make(group=lambda index: range(index - index % 2, min(13, index - index % 2 + 2))))
    for index in range(0, 12, 2):
        assert accumulated[index][1] == accumulated[index + 1][1] == whole[index][1] + whole[index + 1][1]
    assert accumulated[12][1] == whole[12][1]


def test_it_goes_on_where_it_stopped_and_not_in_other_data() -> None:
    batches = make()
    batches.set_epoch(2)
    all_of_it = list(batches)
    state = batches.state_dict() | {"position": 5}
    again = make()
    again.load_state_dict(state)
    again.set_epoch(2)
    assert list(again) == all_of_it[5:]
    with pytest.raises(ValueError, match="pool=5, and here it is 4"):
        make(pool=4).load_state_dict(state)


def test_nothing_and_sizes_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no example"):
        ExampleBatches(np.zeros(0), np.zeros(0), 8, lambda rows, _: rows)
    for settings in ({"pool": 0}, {"batch_size": 0}):
        sizes = {"batch_size": 8, "pool": 1, **settings}
        with pytest.raises(ValueError, match="counts from 1"):
            ExampleBatches(LENGTHS, LENGTHS, sizes["batch_size"], lambda rows, _: rows, pool=sizes["pool"])
