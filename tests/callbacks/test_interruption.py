"""A signal stops training after a whole step, and the resumed run is the one that was left alone."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer
from tiny_runs import Run, TinyRun, same

from callbacks import StopOnSignal
from callbacks.interruption import StoppedError

SAVING = {"enable_checkpointing": True}


class Send(Callback):
    """Sends this process a signal before a batch, counted over all epochs."""

    def __init__(self, batch: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


def stop_and_resume(tiny_run: TinyRun, folder: Path, sent: Send, **trainer: Any) -> tuple[str, dict[str, Any], Run]:
    """What a stopped run says, the checkpoint it leaves, and the run that was resumed from that."""
    settings = SAVING | trainer
    with pytest.raises(StoppedError) as stopped:
        tiny_run([sent, StopOnSignal()], trainer=settings)
    path = folder / "checkpoints" / "last.ckpt"
    resumed = tiny_run([StopOnSignal()], trainer=settings, checkpoint=str(path))
    return str(stopped.value), torch.load(path, weights_only=True), resumed


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(tiny_run: TinyRun, tmp_path: Path, number: signal.Signals) -> None:
    before = signal.getsignal(signal.SIGTERM)
    said, checkpoint, resumed = stop_and_resume(tiny_run, tmp_path, Send(2, number))
    assert said.startswith(f"training: stopped by {number.name} after step 3; all of it is in ")
    assert said.endswith("checkpoints/last.ckpt")
    assert checkpoint["global_step"] == 3
    assert same(resumed, tiny_run())
    assert signal.getsignal(signal.SIGTERM) is before


def test_it_stops_between_groups_of_accumulated_batches(tiny_run: TinyRun, tmp_path: Path) -> None:
    grouped = {"accumulate_grad_batches": 3}
    _, checkpoint, resumed = stop_and_resume(tiny_run, tmp_path, Send(1), **grouped)
    assert checkpoint["global_step"] == 1
    assert checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 3
    assert same(resumed, tiny_run(trainer=grouped))


def test_it_stops_after_the_validation_that_ends_an_epoch_and_not_before(tiny_run: TinyRun, tmp_path: Path) -> None:
    whole = tiny_run()
    batches = int(whole.trainer.num_training_batches)
    _, checkpoint, resumed = stop_and_resume(tiny_run, tmp_path, Send(batches - 1))
    assert checkpoint["global_step"] == batches + 1
    assert same(resumed, whole)


def test_it_stops_after_a_validation_within_an_epoch_and_not_before(tiny_run: TinyRun, tmp_path: Path) -> None:
    often = {"val_check_interval": 2}
    _, checkpoint, resumed = stop_and_resume(tiny_run, tmp_path, Send(1), **often)
    assert checkpoint["global_step"] == 3
    assert same(resumed, tiny_run(trainer=often))


def test_it_stops_where_every_step_is_validated(tiny_run: TinyRun, tmp_path: Path) -> None:
    _, checkpoint, _ = stop_and_resume(tiny_run, tmp_path, Send(1), val_check_interval=1)
    assert checkpoint["global_step"] == 2


def test_a_signal_in_the_last_step_of_all_lets_training_end(tiny_run: TinyRun) -> None:
    whole = tiny_run()
    last = 2 * int(whole.trainer.num_training_batches) - 1
    assert same(tiny_run([Send(last), StopOnSignal()], trainer=SAVING), whole)


def test_a_run_without_a_signal_is_left_alone_and_one_that_comes_too_late_does_not_end_the_process(tiny_run: TinyRun) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert same(tiny_run([StopOnSignal()], trainer=SAVING), tiny_run())
    assert signal.getsignal(signal.SIGTERM) is before
    os.kill(os.getpid(), signal.SIGUSR1)


def test_a_stopped_callback_can_train_again(tiny_run: TinyRun) -> None:
    stop = StopOnSignal()
    with pytest.raises(StoppedError):
        tiny_run([Send(2), stop], trainer=SAVING)
    assert same(tiny_run([stop], trainer=SAVING), tiny_run())


def test_time_does_not_run_backwards() -> None:
    with pytest.raises(ValueError, match="StopOnSignal: ranks ask one another every few seconds, got -1"):
        StopOnSignal(seconds=-1)
