"""Batches of pairs: every pair once, in the same batches for any number of processes, and after any interruption."""

import math
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor

from datamodules.bucketing import BatchUnit, BucketedBatches, TranslationBatch, starts_by_tokens, starts_of_equals
from datamodules.ragged import Ragged
from datamodules.recipes import Words
from datamodules.sides import Side
from datamodules.streams import Place
from datamodules.tokenizers import Tokenizer

PAD, BOS, EOS = 0, 1, 2
both_units = pytest.mark.parametrize(("unit", "size"), [("sentences", 8), ("tokens", 70)])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Words(reserved_tokens=["<pad>", "<bos>", "<eos>", "<unk>"]).train(["a"])


def ragged(sentences: list[list[int]]) -> Ragged:
    offsets = np.cumsum([0, *map(len, sentences)])
    return Ragged(np.array([i for ids in sentences for i in ids], dtype=np.uint16), offsets)


def drawn(count: int, longest: int, seed: int = 0) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(4, 1000, size=random.integers(1, longest + 1)).tolist() for _ in range(count)]


Make = Callable[..., BucketedBatches]


@pytest.fixture(params=[None, 1, 3])
def pool(request: pytest.FixtureRequest) -> int | None:
    found: int | None = request.param
    return found


@pytest.fixture
def make(tokenizer: Tokenizer, pool: int | None) -> Make:
    """make(batch_size, unit, place, **settings), of 101 pairs."""
    source = Side(ragged(drawn(101, 15, 1)), tokenizer, begins=False)
    target = Side(ragged(drawn(101, 12, 2)), tokenizer, begins=True)
    return partial(BucketedBatches, source, target, np.arange(101), pool=pool)


def epoch(batches: BucketedBatches, number: int = 0) -> list[TranslationBatch]:
    batches.set_epoch(number)
    return list(batches)


def same(some: list[TranslationBatch], others: list[TranslationBatch]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) for one, other in zip(some, others, strict=True) for a, b in zip(one, other, strict=True)
    )


def predicted(batch: TranslationBatch) -> int:
    return int((batch.target_lengths - 1).sum())


class TestSide:
    def test_by_hand(self, tokenizer: Tokenizer) -> None:
        sentences = ragged([[7, 8, 9], [], [5]])
        ids, lengths = Side(sentences, tokenizer, begins=False).batch(np.array([2, 0, 1]))
        assert ids.tolist() == [[5, EOS, PAD, PAD], [7, 8, 9, EOS], [EOS, PAD, PAD, PAD]]
        assert lengths.tolist() == [2, 4, 1]
        ids, lengths = Side(sentences, tokenizer, begins=True).batch(np.array([0, 2]))
        assert ids.tolist() == [[BOS, 7, 8, 9, EOS], [BOS, 5, EOS, PAD, PAD]]
        assert lengths.tolist() == [5, 3]
        assert ids.dtype == lengths.dtype == torch.int64

    def test_what_is_cut_keeps_its_end_and_what_is_padded_has_one_width(self, tokenizer: Tokenizer) -> None:
        sentences = ragged([[7, 8, 9, 10], [7, 8], [5]])
        ids, lengths = Side(sentences, tokenizer, begins=False, truncate_to=3).batch(np.arange(3))
        assert ids.tolist() == [[7, 8, EOS], [7, 8, EOS], [5, EOS, PAD]]
        assert lengths.tolist() == [3, 3, 2]
        ids, lengths = Side(sentences, tokenizer, begins=True, truncate_to=3, pad_to=3).batch(np.array([2]))
        assert (ids.tolist(), lengths.tolist()) == ([[BOS, 5, EOS, PAD]], [3])  # the decoder reads 3 and predicts 3
        ids, _ = Side(sentences, tokenizer, begins=False, pad_to=3).batch(np.array([0]))
        assert ids.tolist() == [[7, 8, 9, 10, EOS]]

    @pytest.mark.parametrize("begins", [True, False])
    def test_a_batch_is_what_python_lists_make(self, tokenizer: Tokenizer, begins: bool) -> None:
        sentences = drawn(50, 9)
        rows = np.random.default_rng(3).permutation(50)[:20]
        ids, lengths = Side(ragged(sentences), tokenizer, begins=begins, truncate_to=7).batch(rows)
        lists = [[BOS] * begins + sentences[row][:6] + [EOS] for row in rows]
        width = max(map(len, lists))
        assert ids.tolist() == [row + [PAD] * (width - len(row)) for row in lists]
        assert lengths.tolist() == list(map(len, lists))

    def test_special_tokens_are_needed(self) -> None:
        with pytest.raises(ValueError, match="rows need <bos>, <eos> and <pad>"):
            Side(ragged([[1]]), Words().train(["a"]), begins=False)


class TestCutting:
    def test_by_hand(self) -> None:
        """Budget 10: three rows of 3 (9), two of 5 (10), one of 6 (two would be 12), and one of 20 by itself."""
        assert starts_by_tokens(np.array([2, 3, 3, 5, 5, 6, 20, 20]), 10).tolist() == [0, 3, 5, 6, 7]

    def test_batches_fit_and_another_row_would_not(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(200):
            sizes, budget = random.integers(1, 30, size=random.integers(1, 60)), int(random.integers(1, 120))
            bounds = [*starts_by_tokens(sizes, budget).tolist(), len(sizes)]
            assert bounds[0] == 0
            for start, stop in pairwise(bounds):
                assert stop > start
                assert stop - start == 1 or (stop - start) * sizes[start:stop].max() <= budget
                assert stop == len(sizes) or (stop + 1 - start) * sizes[start : stop + 1].max() > budget

    def test_equal_parts_by_hand(self) -> None:
        """Of 12 in three: 1 + 3, 4 and 4; and each has one, whatever the others hold."""
        assert starts_of_equals(np.array([1, 3, 4, 4]), 3).tolist() == [0, 2, 3]
        assert starts_of_equals(np.array([9, 1, 1]), 3).tolist() == [0, 1, 2]
        assert starts_of_equals(np.array([1, 1, 9]), 3).tolist() == [0, 1, 2]

    def test_equal_parts_are_as_many_as_asked_for_and_as_equal_as_can_be(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(200):
            sizes = random.integers(1, 30, size=random.integers(40, 60))
            count = int(random.integers(1, 10))
            parts = np.split(sizes, starts_of_equals(sizes, count)[1:])
            assert len(parts) == count
            assert all(len(part) and abs(part.sum() - sizes.sum() / count) < 30 for part in parts)


@both_units
class TestAnEpoch:
    def test_every_pair_comes_once_with_its_own_ids(self, make: Make, unit: BatchUnit, size: int) -> None:
        sources, targets = drawn(101, 15, 1), drawn(101, 12, 2)
        batches = epoch(make(size, unit))
        assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == list(range(101))
        for batch in batches:
            assert batch.source.shape[1] == int(batch.source_lengths.max())
            assert batch.target.shape[1] == int(batch.target_lengths.max())
            for row, index in enumerate(batch.indices.tolist()):
                assert batch.source[row, : batch.source_lengths[row]].tolist() == [*sources[index], EOS]
                assert batch.target[row, : batch.target_lengths[row]].tolist() == [BOS, *targets[index], EOS]
                assert not batch.source[row, batch.source_lengths[row] :].any()
                assert not batch.target[row, batch.target_lengths[row] :].any()

    def test_every_epoch_has_the_same_number_of_batches_in_another_order(self, make: Make, unit: BatchUnit, size: int) -> None:
        batches = make(size, unit)
        epochs = [epoch(batches, number) for number in range(10)]
        assert {len(each) for each in epochs} == {len(batches)}
        orders = [[batch.indices.tolist() for batch in each] for each in epochs]
        assert len({str(order) for order in orders}) == 10
        assert len({str(sorted(sorted(rows) for rows in order)) for order in orders}) > 1  # other mates too

    def test_a_batch_is_within_its_size(self, make: Make, unit: BatchUnit, size: int, pool: int | None) -> None:
        batches = epoch(make(size, unit))
        if unit == "sentences":
            assert sorted(len(batch.indices) for batch in batches) == [101 % 8] + [8] * 12
        elif pool:
            tokens = [int(batch.source_lengths.maximum(batch.target_lengths - 1).sum()) for batch in batches]
            assert len(tokens) == math.ceil(sum(tokens) / 70)
            assert all(70 - 16 <= count <= 70 + 16 for count in tokens)  # to within the longest sentence
        else:
            assert all(max(batch.source.numel(), batch.target[:, 1:].numel()) <= 70 for batch in batches)
            assert len(batches) < 30

    def test_lengths_in_a_batch_are_as_alike_as_its_pool_is_large(
        self, make: Make, unit: BatchUnit, size: int, pool: int | None
    ) -> None:
        batches = epoch(make(size, unit))
        padding = sum(int((batch.target == PAD).sum()) for batch in batches) / sum(map(len, drawn(101, 12, 2)))
        least, most = {None: (0, 0.15), 3: (0.15, 0.4), 1: (0.4, 1)}[pool]
        assert least < padding < most

    def test_it_is_a_function_of_seed_and_epoch(self, make: Make, unit: BatchUnit, size: int) -> None:
        used = make(size, unit, Place(seed=7))
        for number in (5, 0, 3, 3, 1):
            assert same(epoch(used, number), epoch(make(size, unit, Place(seed=7)), number))
        assert not same(epoch(used), epoch(make(size, unit, Place(seed=8))))

    def test_a_saved_position_continues_where_it_was_once(self, make: Make, unit: BatchUnit, size: int) -> None:
        whole = epoch(make(size, unit), 4)
        for read in range(1, len(whole) + 1):
            stopped = make(size, unit)
            stopped.set_epoch(4)
            iterator = iter(stopped)
            for _ in range(read):
                next(iterator)
            resumed = make(size, unit)
            next(iter(resumed))  # Lightning may look before it restores
            resumed.load_state_dict(stopped.state_dict())
            assert same(epoch(resumed, 4), whole if read == len(whole) else whole[read:])
            assert same(epoch(resumed, 4), whole)

    def test_evaluation_goes_from_short_to_long_and_is_never_shuffled(self, make: Make, unit: BatchUnit, size: int) -> None:
        batches = make(size, unit, pool=None, shuffle=False)
        assert same(epoch(batches, 0), epoch(batches, 1))
        lengths = [int(length) for batch in batches for length in batch.target_lengths]
        assert lengths == sorted(lengths)
        assert sorted(index for batch in batches for index in batch.indices.tolist()) == list(range(101))

    @pytest.mark.parametrize("world_size", [2, 3, 11])
    def test_the_rows_of_all_ranks_are_the_batch_of_one_process(
        self, make: Make, unit: BatchUnit, size: int, world_size: int
    ) -> None:
        alone = epoch(make(size, unit, Place(1)), 2)
        ranks = [epoch(make(size, unit, Place(1, rank, world_size)), 2) for rank in range(world_size)]
        assert {len(batches) for batches in ranks} == {len(alone)}
        for batch, *parts in zip(alone, *ranks, strict=True):
            indices = torch.cat([part.indices for part in parts]).tolist()
            assert sorted(index for index in indices if index >= 0) == sorted(batch.indices.tolist())
            assert {float(part.normalizer) for part in parts} == {float(batch.normalizer)} == {sum(map(predicted, parts))}

    @pytest.mark.parametrize("accumulate", [1, 2, 5, 1000])
    def test_the_normalizer_counts_the_whole_group_also_a_short_last_one(
        self, make: Make, unit: BatchUnit, size: int, accumulate: int
    ) -> None:
        def group(index: int) -> range:
            return range(index - index % accumulate, index - index % accumulate + accumulate)

        batches = epoch(make(size, unit, group=group), 3)
        for start in range(0, len(batches), accumulate):
            members = batches[start : start + accumulate]
            assert [float(member.normalizer) for member in members] == [sum(map(predicted, members))] * len(members)
        assert len(batches) % 5  # or the last group would not be short


def test_a_rank_without_rows_gets_one_with_nothing_in_it(make: Make) -> None:
    *_, last = sorted(epoch(make(8, "sentences", Place(0, 7, 8))), key=lambda batch: -int(batch.indices.min()))
    assert [part.tolist() for part in last] == [[[EOS]], [1], [[BOS, PAD]], [1], [-1], float(last.normalizer)]
    assert predicted(last) == 0
    assert last.normalizer > 0


def test_only_the_rows_asked_for_are_read(tokenizer: Tokenizer) -> None:
    side = partial(Side, ragged(drawn(20, 9)), tokenizer)
    batches = BucketedBatches(side(begins=False), side(begins=True), np.array([3, 17, 4]), 2)
    assert sorted(torch.cat([batch.indices for batch in batches]).tolist()) == [3, 4, 17]


def test_wrong_settings(make: Make, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="batch_size is a count of tokens from 1, got 0"):
        make(0, "tokens")
    side = partial(Side, ragged([[1]]), tokenizer)
    with pytest.raises(ValueError, match="no pair to make one of"):
        BucketedBatches(side(begins=False), side(begins=True), np.arange(0), 1)


@both_units
def test_gradients_are_those_of_one_big_batch(make: Make, unit: BatchUnit, size: int) -> None:
    """Two ranks, groups of three batches: DDP's mean over ranks, and Lightning's division by 3 in the short group too."""
    world_size, accumulate = 2, 3

    def group(index: int) -> range:
        return range(index - index % accumulate, index - index % accumulate + accumulate)

    torch.manual_seed(0)
    table = torch.randn(1000, 1000, dtype=torch.float64, requires_grad=True)  # nll of each token after each

    def total_nll(batch: TranslationBatch) -> Tensor:
        nll = table.logsumexp(dim=1)[batch.target[:, :-1]] - table[batch.target[:, :-1], batch.target[:, 1:]]
        real = torch.arange(nll.shape[1]) < batch.target_lengths[:, None] - 1
        return (nll * real).sum()

    alone = epoch(make(size, unit, Place(5)))
    ranks = [epoch(make(size, unit, Place(5, rank, world_size), group=group)) for rank in range(world_size)]
    for start in (0, len(alone) - len(alone) % accumulate):
        whole = alone[start : start + accumulate]
        big = sum((total_nll(batch) for batch in whole), torch.zeros(())) / sum(map(predicted, whole))
        parts = [batch for batches in ranks for batch in batches[start : start + accumulate]]
        losses = [total_nll(batch) / batch.normalizer * world_size * accumulate for batch in parts]
        done = torch.stack(losses).sum() / accumulate / world_size
        one, other = torch.autograd.grad(big, table)[0], torch.autograd.grad(done, table)[0]
        assert torch.allclose(one, other, rtol=1e-7, atol=1e-12)
