"""Holding out: how many pairs go where, and that groups never leak."""

import random
from itertools import combinations

import numpy as np
import pytest

from datamodules.holding_out import HoldOut, connected_groups, deal, held_out_rows

TextPair = tuple[str, str]


def drawn(seed: int, count: int, texts: int) -> list[TextPair]:
    draw = random.Random(seed)
    return [(f"s{draw.randrange(texts)}", f"t{draw.randrange(texts)}") for _ in range(count)]


def by_closure(pairs: list[TextPair]) -> list[set[int]]:
    """Groups by merging whatever touches, until nothing does: slow, and plainly right."""
    groups = [({row}, {("source", source), ("target", target)}) for row, (source, target) in enumerate(pairs)]
    while touching := next(((a, b) for a, b in combinations(groups, 2) if a[1] & b[1]), None):
        (rows, texts), (others, more) = touching
        groups = [group for group in groups if group is not touching[0] and group is not touching[1]]
        groups.append((rows | others, texts | more))
    return sorted((rows for rows, _ in groups), key=min)


def as_sets(groups: np.ndarray) -> list[set[int]]:
    return sorted(({int(row) for row in np.flatnonzero(groups == group)} for group in np.unique(groups)), key=min)


def test_a_chain_of_equal_sides_is_one_group() -> None:
    pairs = [("a", "1"), ("b", "2"), ("a", "3"), ("c", "3"), ("3", "a"), ("B ", "9")]
    assert as_sets(connected_groups(pairs)) == [{0, 2, 3}, {1, 5}, {4}]


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_those_of_the_closure(seed: int) -> None:
    pairs = drawn(seed, 40, 5 + 4 * seed)
    assert as_sets(connected_groups(pairs)) == by_closure(pairs)


@pytest.mark.parametrize("way", ["end", "random", "groups"])
def test_every_pair_goes_to_one_split_and_each_has_its_share(way: HoldOut) -> None:
    pairs = [(f"s{row}", f"t{row}") for row in range(101)]
    rows = held_out_rows(pairs, 0.05, 0.1, way, seed=1)
    assert {split: len(part) for split, part in rows.items()} == {"train": 85, "validation": 5, "test": 11}  # floor(0.85 · 101)
    assert sorted(row for part in rows.values() for row in part) == list(range(101))
    assert all(list(part) == sorted(part) for part in rows.values())
    assert (list(rows["test"]) == list(range(90, 101))) is (way == "end")


@pytest.mark.parametrize("way", ["random", "groups"])
def test_the_seed_decides(way: HoldOut) -> None:
    pairs = [(f"s{row}", f"t{row}") for row in range(100)]
    assert held_out_rows(pairs, 0.1, 0.1, way, 1) == held_out_rows(pairs, 0.1, 0.1, way, 1)
    assert held_out_rows(pairs, 0.1, 0.1, way, 1) != held_out_rows(pairs, 0.1, 0.1, way, 2)


@pytest.mark.parametrize("seed", range(10))
def test_no_sentence_is_in_two_splits_and_none_gets_more_than_its_share(seed: int) -> None:
    pairs = drawn(seed, 300, 250)
    rows = held_out_rows(pairs, 0.1, 0.2, "groups", seed)
    for one, other in combinations(rows.values(), 2):
        for side in (0, 1):
            assert not {pairs[row][side] for row in one} & {pairs[row][side] for row in other}
    assert len(rows["validation"]) <= 30
    assert len(rows["test"]) <= 60
    assert sum(map(len, rows.values())) == 300


def test_a_group_that_fits_nowhere_stays_to_be_trained_on() -> None:
    groups = np.array([7, 7, 7, 7, 2, 5])
    for seed in range(10):
        rows = deal(groups, {"test": 1, "validation": 1}, np.random.default_rng(seed))
        assert rows["train"] == [0, 1, 2, 3]
        assert sorted([*rows["test"], *rows["validation"]]) == [4, 5]
