"""Where a run writes."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

RUN_FOLDER = "UNROLL_RUN_FOLDER"
"""Environment variable through which the first process tells its run's folder to those it starts."""


def new_folder(config_files: Sequence[str]) -> Path:
    """A folder that does not exist yet, named after the experiment and the time."""
    name = Path(config_files[0]).stem if config_files else "run"
    folder = Path("runs") / name / datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    number = 2
    while folder.exists():
        folder = folder.with_name(f"{folder.name.split('.')[0]}.{number}")
        number += 1
    return folder
