"""Jobs on a Slurm of two nodes: whatever happens to a run, it comes to the end of the run that was left alone."""

import csv
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from commands import write_experiment
from slurm_cluster import Cluster, wait_for
from slurm_cluster import cluster as cluster

from experiments.listing import CONFIGS

pytestmark = pytest.mark.slow

TRACKED = ("--config", str(CONFIGS / "logger" / "wandb.yaml"))
MEASURED = ("train/tokens_per_second",)
"""Metrics that are not the same in two runs."""
ENDS = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
"""States of a job that it does not leave."""


@dataclass
class Job:
    """A job of the experiment, in a folder of its own."""

    cluster: Cluster
    number: str
    folder: Path

    def curve(self) -> list[dict[str, str]]:
        """Its rows, without what depends on the machine."""
        with (self.folder / "metrics.csv").open() as file:
            return [{name: value for name, value in row.items() if name not in MEASURED} for row in csv.DictReader(file)]

    def steps(self) -> int:
        """How far it is."""
        return int(self.curve()[-1]["step"]) if (self.folder / "metrics.csv").exists() else 0

    def process(self, rank: int) -> int:
        """The process of a rank."""
        (found,) = (int(path.parent.name) for path in Path("/proc").glob("[0-9]*/environ") if self.has_started(path, rank))
        return found

    def has_started(self, path: Path, rank: int) -> bool:
        """Whether a process, by the file of its environment, is that of a rank."""
        try:
            own = dict(item.split("=", 1) for item in path.read_text(errors="replace").split("\0") if "=" in item)
            command = path.with_name("cmdline").read_text().split("\0")
        except OSError:
            return False
        same_job = (own.get("SLURM_JOB_ID"), own.get("SLURM_PROCID")) == (self.number, str(rank))
        return same_job and command[:3] == [sys.executable, "-m", "experiments.run"]

    def end(self) -> str:
        """Wait until it is over; how it ended."""
        states = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        wait_for(
            lambda: self.cluster.field(self.number, "JobState") in states, 600, f"end of the job; see {self.folder}/slurm.log"
        )
        return self.cluster.field(self.number, "JobState")

    def outcome(self) -> str:
        """How the last attempt ended; nothing if it is not over."""
        return (self.folder / "outcome").read_text()

    def log(self) -> str:
        """What it printed."""
        return (self.folder / "slurm.log").read_text()


Submit = Callable[..., Job]


@pytest.fixture(scope="module")
def submit(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Submit:
    """submit(folder, *words): a language model with dropout and a carried state, for three epochs of 20 steps on both nodes."""
    place = tmp_path_factory.mktemp("jobs")
    config = yaml.safe_load(write_experiment(place).read_text())
    config["model"]["init_args"] |= {"input_dropout": 0.2, "output_dropout": 0.2}
    last = {"class_path": "callbacks.LastCheckpoint", "init_args": {"every_n_steps": 7}}
    pace = {"class_path": "pacing.Pace", "init_args": {"seconds": 0.2}}
    config["trainer"] |= {"max_epochs": 3, "log_every_n_steps": 1, "callbacks": [last, pace]}
    (place / "experiment.yaml").write_text(yaml.safe_dump(config))
    environment = {
        **cluster.environment,
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
        "MASTER_ADDR": "127.0.0.1",  # the names of these nodes mean nothing
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "WANDB_MODE": "offline",
    }
    environment.pop("UNROLL_RUN_FOLDER", None)

    def run(folder: str, *words: str, nodes: int = 2) -> Job:
        command = [sys.executable, "-m", "experiments.submit", "experiment.yaml", "--nodes", str(nodes), "--gpus", "0"]
        command += ["--time", "30", "--run_folder", folder, *words]
        done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (number,) = re.findall(r"^job (\d+):", done.stdout)
        return Job(cluster, number, place / folder)

    return run


@pytest.fixture(scope="module")
def whole(submit: Submit) -> Job:
    """The job that is left alone."""
    job = submit("whole", *TRACKED)
    assert job.end() == "COMPLETED", job.log()
    assert job.steps() == 59
    assert "Starting with 2 processes" in job.log()
    return job


def warn(job: Job) -> None:
    """What Slurm does before the time limit."""
    job.cluster("scancel", "--signal", "USR1", job.number)


def preempt(job: Job) -> None:
    """What Slurm does where a job that is urgent needs the nodes."""
    words = ("--partition", "urgent", "--nodes", "2", "--exclusive", "--output", "/dev/null", "--wrap", "true")
    job.cluster("sbatch", *words)


def requeue(job: Job) -> None:
    """What an operator does."""
    job.cluster("scontrol", "requeue", job.number)


def lose_node(job: Job) -> None:
    """What a controller does that hears no more of a node, until it does again."""
    job.cluster("scontrol", "update", "NodeName=two", "State=DOWN", "Reason=test")
    wait_for(lambda: job.cluster.field(job.number, "JobState") == "PENDING", 60, "a waiting job")
    job.cluster("scontrol", "update", "NodeName=two", "State=RESUME")


def kill(job: Job) -> None:
    """What a machine does that has no memory left."""
    os.kill(job.process(1), signal.SIGKILL)


def hang(job: Job) -> None:
    """What a machine does that the network has lost."""
    os.kill(job.process(1), signal.SIGSTOP)


DISTURBANCES = [(warn, TRACKED), (preempt, ()), (requeue, ()), (lose_node, ()), (kill, TRACKED), (hang, ())]


@pytest.mark.parametrize(("disturb", "words"), DISTURBANCES)
def test_a_disturbed_job_is_requeued_and_ends_as_if_nothing_had_happened(
    submit: Submit, whole: Job, disturb: Callable[[Job], None], words: Sequence[str]
) -> None:
    job = submit(disturb.__name__, *words)
    wait_for(lambda: job.steps() >= 24, 300, f"24 steps; see {job.folder}/slurm.log")
    disturb(job)
    if disturb in (warn, preempt, requeue):
        wait_for(lambda: job.outcome() == "stopped", 60, "a checkpoint")
    wait_for(lambda: job.cluster.field(job.number, "Restarts") == "1", 60, "a requeued job")
    assert job.end() == "COMPLETED", job.log()
    assert job.curve() == whole.curve()
    assert job.cluster.field(job.number, "Restarts") == "1"
    if words:
        tracked = [path.name.rpartition("-")[2] for path in job.folder.glob("wandb/offline-run-*")]
        assert len(tracked) == 2
        assert len(set(tracked)) == 1


def test_a_cancelled_job_saves_and_is_not_requeued(submit: Submit) -> None:
    job = submit("cancelled")
    wait_for(lambda: job.steps() >= 3, 300, f"3 steps; see {job.folder}/slurm.log")
    job.cluster("scancel", job.number)
    assert job.end() == "CANCELLED"
    assert job.outcome() == "stopped"
    assert (job.folder / "checkpoints" / "last.ckpt").exists()
    assert job.cluster.field(job.number, "Restarts") == "0"


def test_a_job_with_a_wrong_setting_is_not_requeued(submit: Submit) -> None:
    job = submit("wrong", "--data.lanes", "5")
    assert job.end() == "FAILED"
    assert "error: stream: 5 lanes cannot be shared by 2 processes" in job.log()
    assert job.cluster.field(job.number, "Restarts") == "0"


def test_an_array_is_a_run_for_each_combination(submit: Submit, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep.yaml"
    sweep.write_text("model.layer_sizes: [[8], [6, 4]]\ntrainer.max_epochs: [1]\n")
    job = submit("array", "--array", str(sweep), *TRACKED, nodes=1)
    wait_for(lambda: not job.cluster.jobs(), 600, f"the end of both runs of {job.folder}")
    runs = [job.folder / number for number in ("0", "1")]
    sizes = [yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["layer_sizes"] for run in runs]
    assert sizes == [[8], [6, 4]]
    tracked = [path.name.split("-", 3)[3] for run in runs for path in run.glob("wandb/offline-run-*")]
    first, second = sorted(tracked)
    assert (first[-2:], second[-2:], first[:-2]) == ("-0", "-1", second[:-2])
