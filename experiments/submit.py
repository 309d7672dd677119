"""Runs on a cluster with Slurm: `python -m experiments.submit CONFIG --nodes 2 --gpus 4 --time 12:00:00`."""

import inspect
import itertools
import re
import secrets
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.command import command
from experiments.errors import UsageError, proposal
from experiments.run_folder import new_folder
from experiments.sweep import combinations

TEMPLATE = Path(__file__).parent / "slurm" / "train.sbatch"
TIME = re.compile(r"(?:(\d+)-(\d+)(?::(\d+))?(?::(\d+))?|(\d+):(\d+):(\d+)|(\d+)(?::(\d+))?)")
"""days-hours[:minutes[:seconds]], hours:minutes:seconds, or minutes[:seconds]."""
SECONDS = (86400, 3600, 60, 1, 3600, 60, 1, 60, 1)
"""In one unit of each group of TIME."""

OF_A_RUN = ("config", "seed_everything", "trust")
"""Settings of `experiments.run fit`, beside those of trainer, model and data, that a job passes on."""

EARLY = 60
"""Seconds by which Slurm may send a signal too early."""


def submit(
    config: str,
    nodes: int = 1,
    gpus: int = 1,
    ranks_per_node: int = 1,
    time: str = "1-00:00:00",
    warning: int = 120,
    array: str | None = None,
    sbatch: list[str] = [],  # noqa: B006  (never changed; a tuple could not be appended to on the command line)
    run_folder: str | None = None,
    print: bool = False,
    *,
    flags: Sequence[str] = (),
) -> None:
    """Write the script of a job into the run's folder, and submit it. Other flags are those of `experiments.run fit`.

    The job trains on all its nodes. It is requeued before its time is over, and when another job takes its place, and goes on
    where it was; if it has lost a process or a node, from its last checkpoint.

    Args:
        config: the experiment's YAML file.
        nodes: machines.
        gpus: of each machine, with a process each; 0 to train on processors.
        ranks_per_node: processes on each machine that trains on processors.
        time: limit of one turn of the job, as Slurm reads it: minutes, hours:minutes:seconds, or days-hours.
        warning: seconds before the limit at which the run is told to save and stop; a validation has to fit in.
        array: a YAML file with lists of values, for a run with each combination of them.
        sbatch: an option of sbatch, such as partition=long; may be given several times.
        run_folder: where the run writes; by default runs/EXPERIMENT/DATE_TIME. A run that is there goes on.
        print: print the script and do nothing else.
        flags: of `experiments.run fit`.
    """
    check_count("nodes", nodes)
    check_count("gpus", gpus, least=0)
    check_count("ranks_per_node", ranks_per_node)
    check_time(time, warning)
    runs = combinations(Path(array)) if array else []
    check_flags(["--config", config, *flags, *itertools.chain(*runs)])
    folder = Path(run_folder or new_folder([config]))
    ranks = gpus or ranks_per_node
    where = [f"num_nodes={nodes}", f"devices={ranks}", f"accelerator={'gpu' if gpus else 'cpu'}"]
    words = [sys.executable, "-m", "experiments.run", "fit", "--config", config, "--trainer.enable_progress_bar=false", *flags]
    options = [*([f"gres=gpu:{gpus}"] if gpus else []), *([f"array=0-{len(runs) - 1}"] if runs else []), *sbatch]
    script = filled(
        name=Path(config).stem,
        nodes=nodes,
        ranks=ranks,
        time=time,
        warning=warning,
        log=shlex.quote(f"{folder / '%a' if runs else folder}/slurm.log"),
        options="".join(f"#SBATCH --{option.lstrip('-')}\n" for option in options),
        folder=shlex.quote(str(folder)) + ("/$SLURM_ARRAY_TASK_ID" if runs else ""),
        id=tracking_id(folder) + ("-$SLURM_ARRAY_TASK_ID" if runs else ""),
        overrides=choice(runs),
        command=f'{shlex.join(words)} {shlex.join(f"--trainer.{setting}" for setting in where)} "${{overrides[@]}}"',
    )
    if print:
        sys.stdout.write(script)
    else:
        hand_in(script, folder, len(runs))


def filled(**values: object) -> str:
    """The script, with a value in the place of each name."""
    return re.sub(r"{{(\w+)}}", lambda found: str(values[found[1]]), TEMPLATE.read_text(encoding="utf-8"))


def choice(runs: Sequence[Sequence[str]]) -> str:
    """What gives each task of an array the flags of its run, in the language of the shell."""
    if not runs:
        return "overrides=()"
    cases = [f"    {number}) overrides=({shlex.join(flags)}) ;;" for number, flags in enumerate(runs)]
    return "\n".join(["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"])


def tracking_id(folder: Path) -> str:
    """The W&B id of the run in a folder, which a job that goes on with it keeps."""
    script = folder / TEMPLATE.name
    found = (
        re.search(r"^export WANDB_RUN_ID=(\w+)", script.read_text(encoding="utf-8"), re.MULTILINE) if script.exists() else None
    )
    return found[1] if found else secrets.token_hex(4)


def hand_in(script: str, folder: Path, runs: int) -> None:
    """Write the script, and give it to Slurm.

    Args:
        script: of the job.
        folder: of the run, or of the runs of an array.
        runs: tasks of the array; 0 for a single job.

    Raises:
        FileNotFoundError: if there is no Slurm here.
        RuntimeError: if it refuses the job.
    """
    if shutil.which("sbatch") is None:
        raise FileNotFoundError("sbatch: there is none here; go where the cluster takes jobs, or see the script by --print")
    for place in [folder / str(number) for number in range(runs)] or [folder]:
        place.mkdir(parents=True, exist_ok=True)  # where Slurm writes the log before the job begins
    path = folder / TEMPLATE.name
    path.write_text(script, encoding="utf-8")
    done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True)
    if done.returncode != 0:
        reason = " ".join(done.stderr.split())
        raise RuntimeError(f"sbatch: it refuses {path} ({reason}); correct the options of this command, or give more by --sbatch")
    job = done.stdout.strip().split(";")[0]
    sys.stdout.write(f"job {job}: {path}\nits log: {folder / '*' if runs else folder}/slurm.log\n")


def check_count(name: str, count: int, least: int = 1) -> None:
    """Refuse a number of nothing.

    Raises:
        UsageError: if it is smaller than the least.
    """
    if count < least:
        raise UsageError(f"{name}: {count} are too few; give {least} or more")


def check_time(time: str, warning: int) -> None:
    """Refuse a limit that Slurm would not read, or that leaves no time to train.

    Raises:
        UsageError: if it is one.
    """
    found = TIME.fullmatch(time)
    if not found:
        raise UsageError(f"time: {time!r} is none that Slurm reads; give minutes, hours:minutes:seconds or days-hours")
    seconds = sum(int(group or 0) * unit for group, unit in zip(found.groups(), SECONDS, strict=True))
    if seconds <= warning + EARLY:
        raise UsageError(
            f"time: {time} is {seconds} seconds, and Slurm tells the run to stop up to {warning + EARLY} seconds before its end;"
            " give more, or a smaller --warning"
        )


def check_flags(flags: Sequence[str]) -> None:
    """Refuse now what the run could not take when its turn has come.

    Raises:
        FileNotFoundError: if a config is not there.
        UsageError: if a flag is none of a run that a job begins and goes on with by itself.
    """
    for flag, following in zip(flags, [*flags[1:], ""], strict=True):
        name, equals, value = flag.removeprefix("--").partition("=")
        if not flag.startswith("--"):
            continue
        if "." not in name and name not in OF_A_RUN:
            known = [*inspect.signature(submit).parameters, *OF_A_RUN]
            raise UsageError(f"{name}: a job takes no such setting{proposal(name, known)}")
        path = Path(value if equals else following)
        if name == "config" and not path.is_file():
            raise FileNotFoundError(f"config: there is no file {path}; python -m experiments.run lists the experiments")


if __name__ == "__main__":
    command(submit, others="flags")
