"""The log of a run as a table, which a resumed run continues."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter

from datamodules.cache import write_whole

Row = Mapping[str, Any]


class MetricsFile(CSVLogger):
    """`metrics.csv` in the run's folder. Lightning's own logger deletes the file that it finds there.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(folder, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> "Rows":
        """What writes; made on first use, on the first rank."""
        if not isinstance(self._experiment, Rows):
            self._experiment = Rows(self.log_dir)
        return self._experiment


class Rows(ExperimentWriter):
    """Adds rows to a file, whose columns may become more.

    Args:
        folder: of the file.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.file = Path(self.metrics_file_path)
        self.columns = sorted(set[str]().union(*self.read()))
        self.first_step = 0

    def _check_log_dir_exists(self) -> None:
        """Where Lightning deletes the file: leave it."""

    def begin(self, step: int) -> None:
        """Leave out rows from this step on, which an attempt wrote that went beyond its checkpoint: they will come again."""
        self.first_step = step
        self.write([row for row in self.read() if step_of(row) < step])

    def save(self) -> None:
        """Write the rows logged since."""
        again = {identity(row) for row in self.metrics if row["step"] < self.first_step}  # a repeated validation
        if again or not set().union(*self.metrics) <= set(self.columns):
            self.write([row for row in self.read() if identity(row) not in again] + self.metrics)
        elif self.metrics:
            with self.file.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerows(self.metrics)
        self.metrics = []

    def read(self) -> list[dict[str, Any]]:
        """The rows of the file; a line that was cut off is none."""
        if not self.file.exists():
            return []
        with self.file.open(newline="", encoding="utf-8") as file:
            return [row for row in csv.DictReader(file) if None not in row.values() and row["step"].isdecimal()]

    def write(self, rows: Sequence[Row]) -> None:
        """Put a new file in the place of the old one; none where there are no rows."""
        self.columns = sorted(set[str]().union(*rows))
        if not rows:
            self.file.unlink(missing_ok=True)
            return
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, self.columns)
        writer.writeheader()
        writer.writerows(rows)
        write_whole(self.file, table.getvalue())


class OneCurve(Callback):
    """Lets a run's table go on from the step that training goes on from, and begin anew where training does."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Cut the table."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile) and trainer.is_global_zero:
                logger.experiment.begin(trainer.global_step)


def step_of(row: Row) -> int:
    """Steps of the optimizer before the one that a row tells of, or after which it validates."""
    return int(row["step"])


def identity(row: Row) -> tuple[int, frozenset[str]]:
    """What two rows share of which one repeats the other: the step, and which metrics they have."""
    return step_of(row), frozenset(name for name, value in row.items() if value not in ("", None))
