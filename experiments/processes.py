"""Runs of several processes: what starts them, how long they wait for one another, and what it means when one is gone."""

import os
import re
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch.distributed
from lightning import Trainer
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch.distributed.elastic.rendezvous.api import RendezvousError

PATIENCE = timedelta(seconds=40)
"""How long a process waits for another one; `trainer.strategy: DDPStrategy` with a `timeout` waits as long as you say."""

STOPPED, LOST = 75, 3
"""Exit status of a run that was asked to stop (EX_TEMPFAIL of sysexits.h: try again), and of one that has lost a process."""

OUTCOME = "UNROLL_OUTCOME"
"""Environment variable with the name of a file that tells a job's script how the run ended: stopped, or failed for good.

The exit status of srun cannot say so. It is the highest of all processes', and srun kills the others when one has failed."""

SHARDING = ("fsdp", "deepspeed", "modelparallel")
"""How the names of strategies begin that divide a model among processes."""


class LostProcessError(ConnectionError):
    """A process of this run does not answer."""


def prepare_processes() -> None:
    """Let DDP, under each of its names, give up soon: by default a process waits for half an hour for one that hangs."""
    for entry in StrategyRegistry.values():
        if entry["strategy"] is DDPStrategy:
            entry["init_params"]["timeout"] = PATIENCE


def cluster_environment() -> list[ClusterEnvironment]:
    """What a Trainer has to be told of a Slurm job: not to save within a signal handler, as it would by itself."""
    within = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
    return [SLURMEnvironment(auto_requeue=False)] if within else []


def refuse_sharding(strategy: Any) -> None:
    """Refuse strategies that divide a model among processes.

    Raises:
        ValueError: if it is one, by its name or its class.
    """
    name = strategy if isinstance(strategy, str) else type(strategy).__name__
    if name.lower().startswith(SHARDING):
        raise ValueError(
            f"strategy: {name} divides weights among processes, and clipping, tying and checkpoints take them whole: use ddp,"
            " for these models fit one GPU"
        )


def await_first(trainer: Trainer) -> None:
    """Wait until the first process of a run can be reached; torch waits up to twice as long, and fails with a page of C++.

    Raises:
        LostProcessError: if it cannot.
    """
    cluster: ClusterEnvironment | None = getattr(trainer.strategy, "cluster_environment", None)
    if trainer.world_size == 1 or trainer.global_rank == 0 or cluster is None or not cluster.creates_processes_externally:
        return
    address = (cluster.main_address, cluster.main_port)
    who = f"process {trainer.global_rank} of {trainer.world_size}"
    await_listener(address, f"{who} waited for the first one; see what became of it, or correct MASTER_ADDR and MASTER_PORT")


def await_listener(address: tuple[str, int], sentence: str) -> None:
    """Wait until somebody listens at an address.

    Raises:
        LostProcessError: if nobody does.
    """
    until = time.monotonic() + PATIENCE.total_seconds()
    while True:
        try:
            socket.create_connection(address, timeout=5).close()
        except OSError as error:
            if time.monotonic() < until:
                time.sleep(0.5)
                continue
            place, seconds = ":".join(map(str, address)), PATIENCE.seconds
            raise LostProcessError(
                f"rendezvous: {place} does not answer ({error}), where for {seconds} seconds {sentence}"
            ) from error
        return


def lost_process(error: BaseException) -> str | None:
    """What torch says of a process that is gone, in one sentence; None for other errors."""
    if isinstance(error, LostProcessError):
        return str(error)
    message = " ".join(str(error).split())
    if isinstance(error, RendezvousError) or "clients joined" in message:
        return f"rendezvous: not all processes have come within {PATIENCE.seconds} seconds; start all of them at once"
    if not isinstance(error, torch.distributed.DistError) and "/gloo/" not in message:
        return None
    reason = re.sub(r"^\[\S+\] ", "", message).split(". ")[0]
    return f"processes: one of them is gone or hangs ({reason}); see what it says, and go on from the last checkpoint"


def write_outcome(outcome: Literal["stopped", "failed"]) -> None:
    """Tell the script of a job how the run ended, where there is one."""
    if path := os.environ.get(OUTCOME):
        Path(path).write_text(outcome, encoding="utf-8")
