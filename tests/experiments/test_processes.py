"""Runs of several processes: how they are told to stop, and how soon they notice that they cannot go on."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from threading import Timer

import pytest
import torch
from commands import Command
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from slurm_cluster import free_ports, wait_for

from experiments import processes
from experiments.processes import (
    PATIENCE,
    LostProcessError,
    await_listener,
    cluster_environment,
    lost_process,
    prepare_processes,
    write_outcome,
)
from experiments.torchrun import launch

Variant = Callable[[str, object], Path]
TORCHRUN = (sys.executable, "-m", "experiments.torchrun")


def run(words: Sequence[str], **environment: str) -> "subprocess.Popen[str]":
    """A command in a process of its own."""
    search = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    settings = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": search, **environment}
    return subprocess.Popen(words, env=settings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for longer than a second."""
    monkeypatch.setattr(processes, "PATIENCE", timedelta(seconds=1))


@pytest.mark.parametrize("name", ["ddp", "ddp_find_unused_parameters_true"])
def test_processes_do_not_wait_for_half_an_hour_for_one_that_hangs(name: str) -> None:
    prepare_processes()
    strategy = StrategyRegistry.get(name)
    assert isinstance(strategy, DDPStrategy)
    assert strategy._timeout == PATIENCE < timedelta(minutes=1)


@pytest.mark.usefixtures("impatient")
def test_where_nobody_listens_one_sentence_says_so() -> None:
    (port,) = free_ports(1)
    with pytest.raises(LostProcessError) as error:
        await_listener(("127.0.0.1", port), "process 1 of 2 waited")
    told = rf"rendezvous: 127.0.0.1:{port} does not answer \(.*refused\), where for 1 seconds process 1 of 2 waited"
    assert re.fullmatch(told, str(error.value))
    assert lost_process(error.value) == str(error.value)


def test_a_process_waits_until_somebody_listens() -> None:
    (port,) = free_ports(1)
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", port))
        Timer(0.3, server.listen).start()
        await_listener(("127.0.0.1", port), "it waited")


def test_what_torch_says_of_a_lost_process_is_one_sentence_and_what_it_says_of_others_is_left_to_others() -> None:
    closed = "[/torch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:48293. Check logs."
    assert lost_process(RuntimeError(closed)) == (
        "processes: one of them is gone or hangs (Connection closed by peer [127.0.0.1]:48293); see what it says, and go on from"
        " the last checkpoint"
    )
    alone = torch.distributed.DistStoreError("Timed out after 9 seconds waiting for clients. 1/2 clients joined.")
    assert lost_process(alone) == "rendezvous: not all processes have come within 40 seconds; start all of them at once"
    assert "(Watchdog caught it)" in str(lost_process(torch.distributed.DistBackendError("Watchdog caught it")))
    assert lost_process(RuntimeError("out of memory")) is None


def test_in_a_slurm_job_lightning_sets_no_handler_that_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cluster_environment() == []
    for name, value in {"NTASKS": "2", "NTASKS_PER_NODE": "1", "JOB_NAME": "mine"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (cluster,) = cluster_environment()
    assert isinstance(cluster, SLURMEnvironment)
    assert not cluster.auto_requeue


def test_the_script_of_a_job_learns_how_the_run_ended(
    cli: Command, variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNROLL_OUTCOME", str(tmp_path / "outcome"))
    write_outcome("stopped")
    assert (tmp_path / "outcome").read_text() == "stopped"
    assert cli("fit", "--config", variant("data.lanes", 0)).status == 1
    assert (tmp_path / "outcome").read_text() == "failed"


@pytest.mark.parametrize("strategy", ["fsdp", "deepspeed_stage_2"])
def test_a_strategy_that_divides_weights_is_refused(cli: Command, experiment: Path, strategy: str) -> None:
    done = cli("fit", "--config", experiment, "--trainer.strategy", strategy)
    assert done.status == 1
    assert done.err.splitlines()[-1] == (
        f"error: strategy: {strategy} divides weights among processes, and clipping, tying and checkpoints take them whole: use"
        " ddp, for these models fit one GPU"
    )


@pytest.mark.usefixtures("impatient")
def test_torchrun_tells_of_a_machine_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    (port,) = free_ports(1)
    words = ["--nnodes", "2", "--node-rank", "1", "--master-addr", "127.0.0.1", "--master-port", str(port), "fit"]
    assert launch(words) == 3
    told = capsys.readouterr().err
    assert told.startswith(f"error: rendezvous: 127.0.0.1:{port} does not answer")
    assert told.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rendezvous_that_cannot_be_reached_is_told_of_when_patience_is_over(experiment: Path, rank: int) -> None:
    (port,) = free_ports(1)
    words = ["--nnodes", "2", "--node-rank", str(rank), "--master-addr", "127.0.0.1", "--master-port", str(port)]
    process = run([*TORCHRUN, *words, "fit", "--config", str(experiment)])
    _, told = process.communicate(timeout=120)
    assert process.returncode == 3
    assert told.startswith("error: rendezvous: ")
    assert "40 seconds" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_a_process_of_a_run_that_cannot_reach_the_first_one_says_so(experiment: Path) -> None:
    (port,) = free_ports(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}
    words = ["fit", "--config", str(experiment), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    process = run([sys.executable, "-m", "experiments.run", *words], **place)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 3
    assert told.splitlines()[-1].startswith(f"error: rendezvous: 127.0.0.1:{port} does not answer")
    assert "for 40 seconds process 1 of 2 waited for the first one" in told


@pytest.mark.slow
def test_torchrun_trains_and_a_signal_to_one_process_stops_all_and_they_go_on(experiment: Path) -> None:
    settings = ["--trainer.devices", "2", "--trainer.callbacks+=pacing.Pace", "--trainer.callbacks.seconds=0.1"]
    words = [*TORCHRUN, "--nproc-per-node", "2", "fit", "--config", str(experiment), *settings, "--ckpt_path", "last"]

    def train(folder: str) -> "subprocess.Popen[str]":
        return run([*words, "--run_folder", folder, "--trainer.log_every_n_steps", "1"])

    def steps(folder: str) -> list[str]:
        path = Path(folder, "metrics.csv")
        return [",".join(line.split(",")[:4]) for line in path.read_text().splitlines()] if path.exists() else []

    whole = train("whole")
    assert whole.wait(300) == 0
    stopped = train("stopped")
    wait_for(lambda: len(steps("stopped")) > 5, 120, "five steps")
    os.kill(child(stopped.pid, rank=1), signal.SIGUSR1)
    _, told = stopped.communicate(timeout=120)
    assert stopped.returncode == 75
    (sentence,) = (line for line in told.splitlines() if line.startswith("training: stopped by"))
    assert "a signal to another process after step" in sentence
    assert sentence.endswith("the same command with --run_folder stopped --ckpt_path last goes on from there")
    assert train("stopped").wait(300) == 0
    assert steps("stopped") == steps("whole")


def child(parent: int, rank: int) -> int:
    """The process of a rank that another one has started."""
    for path in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if f"\0RANK={rank}\0" in Path(f"/proc/{path}/environ").read_text():
            return int(path)
    raise AssertionError(f"process {parent} has no child of rank {rank}")
