"""A Slurm of two nodes on the loopback of this machine, for as long as the tests of a file want it."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "squeue", "sinfo")
NODES = ("one", "two")
SETTINGS = """
ClusterName=loopback
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmctldPidFile={folder}/controller.pid
StateSaveLocation={folder}/state
SlurmdPidFile={folder}/%n.pid
SlurmdSpoolDir={folder}/%n
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=2,bf_interval=2
SlurmdParameters=config_overrides
KillWait=20
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=2 PreemptMode=OFF
"""
"""Without munge and root. A requeued job waits for `cred_expire` seconds, 5 at least; an urgent one takes the place of others."""
NODE = "NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=4000 State=UNKNOWN\n"


class Cluster:
    """The cluster's commands.

    Args:
        settings: its slurm.conf.
    """

    def __init__(self, settings: Path) -> None:
        self.environment = {**os.environ, "SLURM_CONF": str(settings)}

    def __call__(self, *words: str) -> str:
        """Run one of Slurm's commands; what it prints."""
        done = subprocess.run(words, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{' '.join(words)}: {done.stderr}"
        return done.stdout.strip()

    def jobs(self) -> list[str]:
        """The numbers of jobs that are not over."""
        return self("squeue", "--noheader", "--format", "%A").split()

    def field(self, job: str, name: str) -> str:
        """What Slurm says of a job, such as its `JobState` or how many `Restarts` it had."""
        found = dict(word.split("=", 1) for word in self("scontrol", "show", "job", job).split() if "=" in word)
        return found[name]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Ask until it is so.

    Raises:
        AssertionError: if it does not become so.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"after {seconds} seconds, not yet: {what}"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A controller and two nodes of two processors, idle."""
    if missing := [program for program in PROGRAMS if shutil.which(program) is None]:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurmctld slurmd slurm-client")
    folder = tmp_path_factory.mktemp("slurm")
    controller, *ports = free_ports(1 + len(NODES))
    nodes = [NODE.format(name=name, port=port) for name, port in zip(NODES, ports, strict=True)]
    settings = folder / "slurm.conf"
    settings.write_text("".join(nodes) + SETTINGS.format(folder=folder, user=getpass.getuser(), controller=controller))
    cluster = Cluster(settings)
    daemons = [start(folder, "slurmctld", "-D", "-f", str(settings))]
    try:
        for name in NODES:
            daemons.append(start(folder, "slurmd", "-D", "-f", str(settings), "-N", name))
        idle = ("sinfo", "--noheader", "--states", "idle", "--format", "%D")
        wait_for(lambda: answer(cluster, idle) == str(len(NODES)), 60, f"idle nodes; see {folder}")
        yield cluster
        cluster("scancel", "--user", getpass.getuser())
        wait_for(lambda: not cluster.jobs(), 60, "the end of all jobs")  # a job that has lost its daemon never ends
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


def start(folder: Path, *words: str) -> "subprocess.Popen[bytes]":
    """A daemon of Slurm, in the foreground of a process of its own."""
    with (folder / f"{words[0]}.{words[-1].replace('/', '_')}.log").open("wb") as log:
        return subprocess.Popen(words, stdout=log, stderr=log)


def answer(cluster: Cluster, words: Sequence[str]) -> str:
    """What a command says, nothing if it fails, for the controller may not be up yet."""
    try:
        return cluster(*words)
    except AssertionError:
        return ""
