"""What is kept from training: the last pairs, any, or any that share no sentence with the rest; of texts, any of each label."""

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np

from datamodules.sources import Split, ends

HoldOut = Literal["end", "random", "groups"]


class TextPairs(Protocol):
    """Two texts at a time."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[tuple[str, str]]: ...


def held_out_rows(
    pairs: TextPairs, validation_fraction: float, test_fraction: float, way: HoldOut, seed: int
) -> dict[Split, Sequence[int]]:
    """The rows of each split, rising; of n pairs, floor((1 − v − t)·n) stay to train on, or more where groups do not fit."""
    total = len(pairs)
    stop, end = ends(total, validation_fraction, test_fraction)
    if way == "end":
        return {"train": range(stop), "validation": range(stop, end), "test": range(end, total)}
    random = np.random.default_rng(seed)
    if way == "random":
        order = random.permutation(total)
        parts: dict[Split, np.ndarray] = {"train": order[:stop], "validation": order[stop:end], "test": order[end:]}
        return {split: sorted(rows.tolist()) for split, rows in parts.items()}
    return deal(connected_groups(pairs), {"test": total - end, "validation": end - stop}, random)


def stratified_rows(
    labels: Sequence[str], validation_fraction: float, test_fraction: float, seed: int
) -> dict[Split, Sequence[int]]:
    """The rows of each split that is asked for, rising, drawn at random: of n of each label, floor((1 − v − t)·n) to train on."""
    random, found = np.random.default_rng(seed), np.array(labels)
    rows: dict[Split, list[int]] = {"train": [], "validation": [], "test": []}
    for label in sorted(set(labels)):
        own = random.permutation(np.flatnonzero(found == label)).tolist()
        stop, end = ends(len(own), validation_fraction, test_fraction)
        for split, part in (("train", own[:stop]), ("validation", own[stop:end]), ("test", own[end:])):
            rows[split] += part  # type: ignore[index]
    shares = {"train": 1.0, "validation": validation_fraction, "test": test_fraction}
    return {split: sorted(held) for split, held in rows.items() if shares[split]}


def deal(groups: np.ndarray, room: dict[Split, int], random: np.random.Generator) -> dict[Split, Sequence[int]]:
    """Whole groups in random order, each to the first split that has room for it, or else to the training.

    Args:
        groups: `(pairs,)` number of each pair's group.
        room: pairs that a split takes.
        random: decides the order.
    """
    _, groups, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    names: tuple[Split, ...] = ("train", *room)
    left = [0, *room.values()]
    choice = np.zeros(len(sizes), dtype=np.int64)
    for group in random.permutation(len(sizes)).tolist():
        place = next((place for place, free in enumerate(left) if free >= sizes[group]), 0)
        left[place] -= sizes[group] if place else 0
        choice[group] = place
    return {name: np.flatnonzero(choice[groups] == place).tolist() for place, name in enumerate(names)}


def connected_groups(pairs: TextPairs) -> np.ndarray:
    """`(pairs,)` a number for each pair, the same where a chain of equal sources or targets joins two pairs.

    Texts that differ only in case or white space are equal here: a tokenizer may see no difference.
    """
    parent = list(range(len(pairs)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    seen: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for row, pair in enumerate(pairs):
        for first, text in zip(seen, pair, strict=True):
            parent[root(row)] = root(first.setdefault(" ".join(text.casefold().split()), row))
    return np.array([root(row) for row in range(len(parent))], dtype=np.int64)
