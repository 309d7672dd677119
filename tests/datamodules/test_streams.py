"""Streams: which tokens come, in which order, in which process, and after which interruption."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from datamodules.streams import CompleteStream, Place, SequentialStream, SlidingStream, Stream, StreamFactory, Window
from datamodules.variable_stream import VariableStream

STREAMS: dict[str, StreamFactory] = {
    "sequential": SequentialStream,
    "sequential-fixed": partial(SequentialStream, random_offset=False),
    "variable": VariableStream,
    "sliding": SlidingStream,
    "sliding-in-order": partial(SlidingStream, stride=2, shuffle=False),
    "complete": CompleteStream,
}
every_stream = pytest.mark.parametrize("name", STREAMS)


def counting(length: int) -> np.ndarray:
    """A corpus whose tokens are their own positions."""
    return np.arange(length, dtype=np.uint16)


def rows(window: Window) -> list[list[int]]:
    result: list[list[int]] = window.tokens.tolist()
    return result


def epoch(stream: Stream, number: int = 0) -> list[Window]:
    stream.set_epoch(number)
    return list(stream)


def same(some: list[Window], others: list[Window]) -> bool:
    return len(some) == len(others) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a is b
        for one, other in zip(some, others, strict=True)
        for a, b in zip(one, other, strict=True)
    )


class TestSequential:
    def test_the_example_of_35_tokens(self) -> None:
        """Batch 2, 5 steps. Where the offset is 0, lanes have (35 − 1) // 2 = 17 tokens, and 3 windows fit."""
        stream = SequentialStream(counting(35), 2, 5)
        windows = next(windows for number in range(50) if rows((windows := epoch(stream, number))[0])[0][0] == 0)
        assert [rows(window) for window in windows] == [
            [[0, 1, 2, 3, 4], [17, 18, 19, 20, 21]],
            [[5, 6, 7, 8, 9], [22, 23, 24, 25, 26]],
            [[10, 11, 12, 13, 14], [27, 28, 29, 30, 31]],
        ]
        assert windows[0].targets.tolist() == [[1, 2, 3, 4, 5], [18, 19, 20, 21, 22]]
        assert windows[0].mask is None

    def test_an_offset_shifts_the_example(self) -> None:
        for number in range(20):
            windows = epoch(SequentialStream(counting(35), 2, 5), number)
            offset = rows(windows[0])[0][0]
            lane = (35 - offset - 1) // 2
            assert 0 <= offset < 5
            assert [rows(window)[1][0] for window in windows] == [offset + lane + 5 * index for index in range(3)]

    def test_without_offsets_a_lane_begins_where_the_one_before_ends(self) -> None:
        """The example again, in lanes of three whole windows: 15 tokens."""
        first, *_, last = epoch(SequentialStream(counting(35), 2, 5, random_offset=False))
        assert rows(first) == [[0, 1, 2, 3, 4], [15, 16, 17, 18, 19]]
        assert last.targets.tolist() == [[11, 12, 13, 14, 15], [26, 27, 28, 29, 30]]

    @pytest.mark.parametrize("random_offset", [True, False])
    def test_every_row_continues_itself_in_the_next_window(self, random_offset: bool) -> None:
        stream = SequentialStream(counting(1000), 4, 7, random_offset=random_offset)
        assert stream.contiguous
        for before, after in pairwise(epoch(stream, 3)):
            assert torch.equal(before.targets[:, -1], after.tokens[:, 0])
            assert torch.equal(before.tokens[:, -1] + 1, after.tokens[:, 0])

    def test_every_offset_comes(self) -> None:
        stream = SequentialStream(counting(100), 2, 5)
        assert {rows(epoch(stream, number)[0])[0][0] for number in range(60)} == {0, 1, 2, 3, 4}

    def test_no_token_is_read_twice_in_an_epoch_and_less_than_a_window_is_left_out(self) -> None:
        for length in range(60, 130):
            tokens = torch.cat([window.tokens.flatten() for window in epoch(SequentialStream(counting(length), 3, 6))]).tolist()
            assert len(set(tokens)) == len(tokens)
            assert length - len(tokens) < 6 + 3 * 6

    @pytest.mark.parametrize(("random_offset", "need"), [(True, 20 * 35 + 35), (False, 20 * 35 + 1)])
    def test_a_corpus_of_just_the_size_makes_one_window_and_a_smaller_one_says_so(self, random_offset: bool, need: int) -> None:
        make = partial(SequentialStream, lanes=20, steps=35, random_offset=random_offset)
        for number in range(50):
            assert len(epoch(make(counting(need)), number)) == 1
        with pytest.raises(
            ValueError, match=f"20 lanes of 35 steps need at least {need} tokens, and the corpus has {need - 1}: use fewer"
        ):
            make(counting(need - 1))


class TestSliding:
    def test_windows_in_order(self) -> None:
        stream = SlidingStream(counting(12), 2, 4, stride=2, shuffle=False, random_offset=False)
        windows = epoch(stream)
        assert [rows(window) for window in windows] == [[[0, 1, 2, 3], [2, 3, 4, 5]], [[4, 5, 6, 7], [6, 7, 8, 9]]]
        assert windows[1].targets.tolist() == [[5, 6, 7, 8], [7, 8, 9, 10]]
        assert not stream.contiguous

    def test_a_full_batch_of_sliding_windows(self) -> None:
        """1,270 tokens, windows of 4 words, stride 1, full batch: one batch of all 1,266 windows."""
        stream = SlidingStream(counting(1270), 1266, 4, stride=1, shuffle=False)
        (window,) = epoch(stream)
        assert torch.equal(window.tokens, torch.arange(1266)[:, None] + torch.arange(4))

    @pytest.mark.parametrize(("stride", "steps"), [(1, 5), (3, 5), (5, 5), (8, 5), (None, 5)])
    def test_every_window_begins_a_multiple_of_the_stride_after_the_offset(self, stride: int | None, steps: int) -> None:
        stream = SlidingStream(counting(200), 1, steps, stride=stride)
        for number in range(10):
            starts = sorted(rows(window)[0][0] for window in epoch(stream, number))
            assert 0 <= starts[0] < (stride or steps)
            assert {after - before for before, after in pairwise(starts)} == {stride or steps}

    def test_every_possible_offset_fits_and_none_wastes_a_window(self) -> None:
        for length in range(30, 40):
            for stride in (1, 2, 5, 7):
                stream = SlidingStream(counting(length), 1, 6, stride=stride)
                starts = {rows(window)[0][0] for number in range(30) for window in epoch(stream, number)}
                assert min(starts) == 0
                assert length - 1 - 6 - stride < max(starts) <= length - 1 - 6

    def test_shuffled_windows_are_those_in_order_in_another_order_every_epoch(self) -> None:
        make = partial(SlidingStream, counting(101), 1, 5, random_offset=False)
        in_order = [rows(window) for window in epoch(make(shuffle=False))]
        first, second = ([rows(window) for window in epoch(make(), number)] for number in (0, 1))
        assert sorted(first) == sorted(second) == in_order
        assert len({str(order) for order in (first, second, in_order)}) == 3

    def test_too_few_windows_are_refused(self) -> None:
        with pytest.raises(ValueError, match="10 tokens make 5 windows of 5 steps, too few for one batch of 6: use fewer"):
            SlidingStream(counting(10), 6, 5, stride=1)
        with pytest.raises(ValueError, match="3 tokens make 0 windows of 5 steps"):
            SlidingStream(counting(3), 1, 5)
        with pytest.raises(ValueError, match="the stride is a count of tokens from 1, got 0"):
            SlidingStream(counting(10), 1, 5, stride=0)


class TestComplete:
    def test_by_hand(self) -> None:
        """Eight tokens are seven targets: lanes of ceil(7 / 2) = 4, the last of which is one short."""
        first, second = epoch(CompleteStream(counting(8), 2, 3))
        assert rows(first) == [[0, 1, 2], [4, 5, 6]]
        assert first.targets.tolist() == [[1, 2, 3], [5, 6, 7]]
        assert first.mask is None
        assert [row[:1] for row in rows(second)] == [[3], [7]]
        assert second.targets[0].tolist() == [4]
        assert second.mask is not None
        assert second.mask.tolist() == [[1], [0]]

    def test_every_token_after_the_first_is_a_target_exactly_once(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(300):
            length, lanes, steps = int(random.integers(2, 80)), int(random.integers(1, 12)), int(random.integers(1, 20))
            targets: list[int] = []
            stream = CompleteStream(counting(length), lanes, steps)
            windows = epoch(stream)
            assert len(windows) == len(stream)
            for window in windows:
                assert window.tokens.shape == window.targets.shape
                assert 1 <= window.tokens.shape[1] <= steps
                real = torch.ones_like(window.targets, dtype=torch.bool) if window.mask is None else window.mask.bool()
                assert torch.equal(window.tokens[real] + 1, window.targets[real])
                targets += window.targets[real].tolist()
            assert sorted(targets) == list(range(1, length)), (length, lanes, steps)

    def test_every_row_continues_itself_in_the_next_window(self) -> None:
        for before, after in pairwise(epoch(CompleteStream(counting(100), 3, 7))):
            real = slice(None) if after.mask is None else after.mask[:, 0].bool()
            assert torch.equal(before.targets[real, -1], after.tokens[real, 0])

    @pytest.mark.parametrize("length", [0, 1])
    def test_nothing_to_predict_is_refused(self, length: int) -> None:
        with pytest.raises(ValueError, match=f"a text of {length} tokens has nothing to predict"):
            CompleteStream(counting(length), 1, 5)


@every_stream
class TestEveryStream:
    def test_targets_are_the_next_tokens(self, name: str) -> None:
        for window in epoch(STREAMS[name](counting(500), 4, 6, Place())):
            real = slice(None) if window.mask is None else window.mask.bool()
            assert torch.equal(window.tokens[real] + 1, window.targets[real])
            assert window.tokens.dtype == window.targets.dtype == torch.int64

    def test_every_epoch_has_the_same_number_of_windows(self, name: str) -> None:
        for length in (100, 101, 113, 119, 120, 121):
            stream = STREAMS[name](counting(length), 3, 7, Place())
            assert {len(epoch(stream, number)) for number in range(15)} == {len(stream)}

    def test_windows_are_a_function_of_seed_and_epoch(self, name: str) -> None:
        def windows(seed: int, number: int) -> list[Window]:
            return epoch(STREAMS[name](counting(500), 2, 30, Place(seed=seed)), number)

        used = STREAMS[name](counting(500), 2, 30, Place(seed=7))
        for number in (5, 0, 3, 3, 1):  # whatever epochs were drawn before
            assert same(epoch(used, number), windows(7, number))
        if name in ("sequential", "variable", "sliding"):
            assert not all(same(windows(7, 0), windows(7, number)) for number in (1, 2, 3))
            assert not all(same(windows(7, 0), windows(seed, 0)) for seed in (1, 2, 3))

    @pytest.mark.parametrize("world_size", [2, 3, 6])
    def test_the_rows_of_all_ranks_are_the_batch_of_one_process(self, name: str, world_size: int) -> None:
        alone = epoch(STREAMS[name](counting(301), 6, 7, Place(seed=1)), 2)
        ranks = [epoch(STREAMS[name](counting(301), 6, 7, Place(1, rank, world_size)), 2) for rank in range(world_size)]
        assert [len(windows) for windows in ranks] == [len(alone)] * world_size
        for index, window in enumerate(alone):
            parts = [windows[index] for windows in ranks]
            assert torch.equal(torch.cat([part.tokens for part in parts]), window.tokens)
            assert torch.equal(torch.cat([part.targets for part in parts]), window.targets)
            masks = [torch.ones_like(part.tokens).float() if part.mask is None else part.mask for part in parts]
            whole = torch.ones_like(window.tokens).float() if window.mask is None else window.mask
            assert torch.equal(torch.cat(masks), whole)

    def test_a_rank_reads_from_disk_no_more_than_its_own_lanes(self, name: str) -> None:
        read: set[int] = set()

        class Watched(np.ndarray[Any, Any]):
            def __getitem__(self, index: Any) -> Any:
                read.update(np.ravel(index).tolist())
                return np.asarray(super().__getitem__(index))

        stream = STREAMS[name](counting(3000).view(Watched), 6, 7, Place(1, 1, 3))
        windows = epoch(stream)
        assert read == {position for window in windows for part in window[:2] for position in part.flatten().tolist()}
        assert not stream.contiguous or len(read) <= 3000 / 3 + 2

    def test_any_array_and_any_reading_direction_will_do(self, name: str, tmp_path: Path) -> None:
        counting(300).tofile(tmp_path / "ids")
        mapped = np.memmap(tmp_path / "ids", dtype="uint16", mode="r")
        make = STREAMS[name]
        assert same(epoch(make(mapped, 2, 6, Place())), epoch(make(counting(300), 2, 6, Place())))
        backwards = epoch(make(mapped[::-1], 2, 6, Place()))
        assert same(backwards, epoch(make(counting(300)[::-1].copy(), 2, 6, Place())))
        assert backwards[0].targets[0, 0] == backwards[0].tokens[0, 0] - 1

    def test_a_saved_position_continues_where_it_was_once(self, name: str) -> None:
        make = partial(STREAMS[name], counting(301), 2, 6, Place())
        whole = epoch(make(), 4)
        for read in range(1, len(whole) + 1):
            stopped = make()
            stopped.set_epoch(4)
            iterator = iter(stopped)
            for _ in range(read):
                next(iterator)
            state = stopped.state_dict()
            resumed = make()
            next(iter(resumed))  # Lightning may look before it restores
            resumed.load_state_dict(state)
            assert resumed.state_dict()["position"] % len(whole) == read % len(whole)
            rest = whole if read == len(whole) else whole[read:]
            assert same(epoch(resumed, 4), rest)
            assert same(epoch(resumed, 4), whole)

    def test_an_abandoned_epoch_does_not_move_the_next(self, name: str) -> None:
        stream = STREAMS[name](counting(301), 2, 6, Place())
        whole = epoch(stream)
        iterator = iter(stream)
        next(iterator)
        next(iterator)
        assert same(list(stream), whole)

    @pytest.mark.parametrize(("lanes", "steps"), [(0, 5), (5, 0), (-1, 5)])
    def test_lanes_and_steps_are_counts(self, name: str, lanes: int, steps: int) -> None:
        with pytest.raises(ValueError, match=f"counts from 1, got lanes={lanes}, steps={steps}"):
            STREAMS[name](counting(100), lanes, steps, Place())

    def test_lanes_that_cannot_be_shared_are_refused(self, name: str) -> None:
        with pytest.raises(ValueError, match="5 lanes cannot be shared by 2 processes: use a multiple of 2"):
            STREAMS[name](counting(100), 5, 4, Place(0, 0, 2))


class Reader(LightningModule):
    """Remembers what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.read: list[list[list[int]]] = []

    def training_step(self, batch: Window, batch_index: int) -> Tensor:  # noqa: ARG002
        self.read.append(rows(batch))
        return self.weight * batch.tokens.float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class TestInATrainer:
    def read(
        self,
        make_trainer: Callable[..., Trainer],
        name: str,
        callbacks: list[Callback],
        ckpt_path: Path | None = None,
        **settings: Any,
    ) -> list[list[list[int]]]:
        module = Reader()
        trainer = make_trainer(callbacks=callbacks, enable_checkpointing=bool(callbacks), max_epochs=3, **settings)
        stream = STREAMS[name](counting(200), 2, 14, Place(seed=3))
        trainer.fit(module, train_dataloaders=stream, ckpt_path=ckpt_path)
        return module.read

    @pytest.mark.parametrize("accumulate", [1, 2])
    @pytest.mark.parametrize("name", ["sequential", "sliding"])
    def test_a_resumed_run_reads_what_an_uninterrupted_one_reads(
        self, make_trainer: Callable[..., Trainer], tmp_path: Path, name: str, accumulate: int
    ) -> None:
        saving = ModelCheckpoint(tmp_path, filename="{step}", save_top_k=-1, every_n_train_steps=1)
        whole = self.read(make_trainer, name, [saving], accumulate_grad_batches=accumulate)
        windows = len(STREAMS[name](counting(200), 2, 14, Place()))
        expected = [
            rows(window) for number in range(3) for window in epoch(STREAMS[name](counting(200), 2, 14, Place(seed=3)), number)
        ]
        assert windows == 6
        assert whole == expected
        files = sorted(tmp_path.glob("step=*.ckpt"), key=lambda path: int(path.stem.removeprefix("step=")))
        assert len(files) == 18 // accumulate
        for path in files[:-1]:
            read = int(path.stem.removeprefix("step=")) * accumulate
            assert self.read(make_trainer, name, [], path, accumulate_grad_batches=accumulate) == whole[read:], path.stem
