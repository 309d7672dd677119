"""What `python -m experiments.submit` writes for Slurm, what the script does there, and what is refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import Call, Finished

from experiments.submit import submit

Submit = Callable[..., Finished]


@pytest.fixture
def submitting(call: Call, experiment: Path) -> Submit:
    """submitting(*words): the command, for a config in the current folder."""
    return lambda *words: call(submit, experiment.name, *words, others="flags")


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """tool(name, body): a program of Slurm that notes its arguments, a line each, and does what the body says."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, body: str = "") -> None:
        (folder / name).write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" >{tmp_path}/{name}.called\n{body}\n')
        (folder / name).chmod(0o755)

    return make


def called(name: str) -> list[str]:
    """The arguments a tool was called with; none if it was not."""
    path = Path(f"{name}.called")
    return path.read_text().splitlines() if path.exists() else []


def options(script: str) -> dict[str, str]:
    """What a script asks of sbatch."""
    lines = [line.removeprefix("#SBATCH --") for line in script.splitlines() if line.startswith("#SBATCH --")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def play(script: str, **environment: str) -> int:
    """Run a script, as Slurm would on the first node of a job; its exit status."""
    return subprocess.run(["bash", "-c", script], env={**os.environ, "SLURM_JOB_ID": "7", **environment}).returncode


# What is written


def test_the_script_asks_for_nodes_gpus_and_time_and_trains_on_all_of_them(submitting: Submit) -> None:
    done = submitting("--nodes", "2", "--gpus", "4", "--time", "12:00:00", "--run_folder", "mine", "--print")
    assert done.status == 0, done.err
    assert options(done.out) == {
        "job-name": "experiment",
        "nodes": "2",
        "ntasks-per-node": "4",
        "gres": "gpu:4",
        "time": "12:00:00",
        "signal": "SIGUSR1@120",
        "requeue": "",
        "open-mode": "append",
        "output": "mine/slurm.log",
    }
    assert "--trainer.num_nodes=2 --trainer.devices=4 --trainer.accelerator=gpu" in done.out
    assert not Path("mine").exists()


def test_without_gpus_there_are_as_many_processes_as_asked_for(submitting: Submit) -> None:
    script = submitting("--nodes", "2", "--gpus", "0", "--ranks_per_node", "3", "--print").out
    assert options(script)["ntasks-per-node"] == "3"
    assert "gres" not in options(script)
    assert "--trainer.num_nodes=2 --trainer.devices=3 --trainer.accelerator=cpu" in script


def test_sbatch_gets_options_and_the_run_gets_all_other_flags(submitting: Submit, tool: Callable[..., None]) -> None:
    Path("more.yaml").write_text("seed_everything: 2\n")
    ours = ["--sbatch", "partition=long", "--warning", "60", "--sbatch=account=me", "--print"]
    theirs = ["--config", "more.yaml", "--trainer.max_epochs", "-1", "--model.layer_sizes", "[4, 4]", "--seed_everything=3"]
    script = submitting(*ours[:2], *theirs[:4], *ours[2:], *theirs[4:]).out
    asked = options(script)
    assert (asked["partition"], asked["account"], asked["signal"]) == ("long", "me", "SIGUSR1@60")
    tool("srun")
    folder = Path(asked["output"]).parent
    folder.mkdir(parents=True)
    assert play(script) == 0
    first = ["--kill-on-bad-exit=1", sys.executable, "-m", "experiments.run", "fit", "--config", "experiment.yaml"]
    last = ["--run_folder", str(folder), "--ckpt_path", "last"]
    words = called("srun")
    assert words[: len(first)] == first
    assert words[len(first) + 1 : -7] == theirs
    assert words[-4:] == last


def test_each_task_of_an_array_has_a_folder_a_tracked_run_and_a_combination_of_values(
    submitting: Submit, tool: Callable[..., None]
) -> None:
    Path("sweep.yaml").write_text("model.layer_sizes: [[4], [4, 8]]\ndata.source.train: [a b.txt, c.txt]\nmodel.carry: [false]\n")
    script = submitting("--array", "sweep.yaml", "--gpus", "1", "--run_folder", "many runs", "--print").out
    assert options(script)["array"] == "0-3"
    assert options(script)["output"] == "'many runs/%a/slurm.log'"
    tool("srun", "echo $WANDB_RUN_ID >tracked")
    found = []
    for task in range(4):
        Path(f"many runs/{task}").mkdir(parents=True)
        assert play(script, SLURM_ARRAY_TASK_ID=str(task), SLURM_ARRAY_JOB_ID="7") == 0
        found.append(called("srun")[-7:])
        assert Path("tracked").read_text().endswith(f"-{task}\n")
    assert [words[:2] for words in found] == [
        [f"--model.layer_sizes={sizes}", f"--data.source.train={text}"]
        for sizes in ("[4]", "[4, 8]")
        for text in ("a b.txt", "c.txt")
    ]
    assert [words[2:5] for words in found] == [["--model.carry=false", "--run_folder", f"many runs/{task}"] for task in range(4)]


# What the script does when the run has ended


@pytest.mark.parametrize(
    ("ended", "restarts", "again"),
    [
        ("exit 0", 0, False),
        ("echo -n stopped >$UNROLL_OUTCOME; exit 75", 50, True),
        ("echo -n stopped >$UNROLL_OUTCOME; exit 143", 50, True),
        ("echo -n failed >$UNROLL_OUTCOME; exit 1", 0, False),
        ("echo -n failed >$UNROLL_OUTCOME; exit 137", 0, False),
        ("exit 137", 0, True),
        ("exit 3", 2, True),
        ("exit 137", 3, False),
        ("sleep 0.01; touch mine/checkpoints/last.ckpt; exit 137", 3, True),
    ],
)
def test_a_job_is_requeued_where_another_attempt_can_get_further(
    submitting: Submit, tool: Callable[..., None], ended: str, restarts: int, again: bool
) -> None:
    script = submitting("--run_folder", "mine", "--print").out
    Path("mine/checkpoints").mkdir(parents=True)
    Path("mine/checkpoints/last.ckpt").touch()
    os.utime("mine/checkpoints/last.ckpt", (0, 0))
    tool("srun", ended)
    tool("scontrol")
    status = play(script, SLURM_RESTART_COUNT=str(restarts))
    assert status == int(ended.split()[-1])
    assert called("scontrol") == (["requeue", "7"] if again else [])
    assert Path("mine/outcome").exists() == (status != 0)


def test_of_an_array_only_the_task_is_requeued(submitting: Submit, tool: Callable[..., None]) -> None:
    Path("sweep.yaml").write_text("model.carry: [true, false]\n")
    script = submitting("--array", "sweep.yaml", "--run_folder", "mine", "--print").out
    Path("mine/1").mkdir(parents=True)
    tool("srun", "exit 137")
    tool("scontrol")
    play(script, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="6")
    assert called("scontrol") == ["requeue", "6_1"]


# Submission


def test_the_script_is_written_into_the_runs_folder_and_submitted(submitting: Submit, tool: Callable[..., None]) -> None:
    tool("sbatch", "echo '12;cluster'")
    done = submitting("--gpus", "0")
    assert done.status == 0, done.err
    (script,) = Path("runs/experiment").glob("*/train.sbatch")
    assert done.out == f"job 12: {script}\nits log: {script.parent}/slurm.log\n"
    assert called("sbatch") == ["--parsable", str(script)]


def test_a_run_that_goes_on_with_another_job_keeps_its_tracked_run(submitting: Submit, tool: Callable[..., None]) -> None:
    tool("sbatch", "echo 12")
    scripts = []
    for folder in ("one", "one", "two"):
        assert submitting("--run_folder", folder).status == 0
        scripts.append(Path(folder, "train.sbatch").read_text())
    first, second, other = ([line for line in script.splitlines() if "WANDB_RUN_ID" in line] for script in scripts)
    assert first == second != other


def test_a_job_that_slurm_refuses_is_one_sentence(submitting: Submit, tool: Callable[..., None]) -> None:
    tool("sbatch", "echo 'sbatch: error: invalid partition specified: none' >&2; exit 1")
    done = submitting("--run_folder", "mine", "--sbatch", "partition=none")
    assert done.status == 1
    assert done.err == (
        "error: sbatch: it refuses mine/train.sbatch (sbatch: error: invalid partition specified: none); correct the options of"
        " this command, or give more by --sbatch\n"
    )


def test_without_slurm_nothing_is_written(submitting: Submit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.submit.shutil.which", lambda _: None)
    done = submitting("--run_folder", "mine")
    assert done.status == 1
    assert done.err == "error: sbatch: there is none here; go where the cluster takes jobs, or see the script by --print\n"
    assert not Path("mine").exists()


# Errors


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--time", "soon"], "time: 'soon' is none that Slurm reads; give minutes, hours:minutes:seconds or days-hours"),
        (["--time", "1:2:3:4"], "time: '1:2:3:4' is none that Slurm reads; give minutes, hours:minutes:seconds or days-hours"),
        (
            ["--time", "3"],
            "time: 3 is 180 seconds, and Slurm tells the run to stop up to 180 seconds before its end; give more, or a smaller"
            " --warning",
        ),
        (["--nodes", "0"], "nodes: 0 are too few; give 1 or more"),
        (["--gpus", "-1"], "gpus: -1 are too few; give 0 or more"),
        (["--gpus", "many"], "gpus: 'many' is not a whole number"),
        (["--node", "2"], "node: a job takes no such setting; did you mean nodes?"),
        (["--ckpt_path", "mine.ckpt"], "ckpt_path: a job takes no such setting; there are"),
    ],
)
def test_a_wrong_flag_is_one_sentence(submitting: Submit, words: list[str], told: str) -> None:
    done = submitting(*words, "--print")
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"error: {told}")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("time", ["4", "3:01", "0:03:01", "12:00:00", "1-0", "1-12:30", "1-12:30:15"])
def test_every_way_to_write_a_time_is_taken(submitting: Submit, time: str) -> None:
    assert options(submitting("--time", time, "--print").out)["time"] == time


@pytest.mark.parametrize(
    ("sweep", "told"),
    [
        (None, "sweep: there is no file sweep.yaml; write one with lines such as model.output_dropout: [0.1, 0.3]"),
        ("", "sweep: sweep.yaml holds no settings; write lines such as model.output_dropout: [0.1, 0.3]"),
        ("- a\n", "sweep: sweep.yaml holds no settings; write lines such as model.output_dropout: [0.1, 0.3]"),
        ("model.carry: true\n", "sweep: model.carry is True in sweep.yaml, and no list of values to try; write [..., ...]"),
        ("model.carry: []\n", "sweep: model.carry is [] in sweep.yaml, and no list of values to try; write [..., ...]"),
        ("model.carry: [true\n", "sweep: sweep.yaml is no YAML (while parsing a flow sequence"),
        ("nodes: [1, 2]\n", "nodes: a job takes no such setting"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(submitting: Submit, sweep: str | None, told: str) -> None:
    if sweep is not None:
        Path("sweep.yaml").write_text(sweep)
    done = submitting("--array", "sweep.yaml", "--print")
    assert done.status != 0
    assert done.err.startswith(f"error: {told}")
    assert done.err.count("\n") == 1


@pytest.mark.usefixtures("experiment")
def test_a_config_that_is_not_there_is_refused_before_it_waits_in_a_queue(call: Call) -> None:
    for words in (["none.yaml"], ["experiment.yaml", "--config", "none.yaml"], ["experiment.yaml", "--config=none.yaml"]):
        done = call(submit, *words, "--print", others="flags")
        assert done.err == "error: config: there is no file none.yaml; python -m experiments.run lists the experiments\n"
