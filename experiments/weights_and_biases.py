"""Weights & Biases tracking that works without an account: offline by itself, and it says how to sync."""

import os
import sys
from pathlib import Path
from typing import Any

import wandb
from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger
from lightning.pytorch.utilities import rank_zero_only

from callbacks.paths import shown

MINIMISED = ("train/ppl_epoch", "val/ppl", "val/loss")
MAXIMISED = ("val/accuracy", "val/bleu", "val/chrf", "val/token_accuracy", "val/sequence_accuracy")


class WandbLogger(LightningWandbLogger):
    """Lightning's logger with three differences.

    Without an API key it runs offline and says so; it keeps the best values of perplexity, loss, accuracy and translation
    scores in the run's summary; and a table that grows during the run, such as that of samples, is logged row by row.

    Args:
        project: of the run.
        name: of the run; null lets W&B choose.
        id: of the run, to continue it; null reads WANDB_RUN_ID, or makes a new one.
        offline: write to disk only; null decides by whether there is an API key.
        save_dir: folder that gets the run's `wandb` folder; null for the run's folder.
        log_model: upload checkpoints, which an offline run cannot.

    Raises:
        ValueError: if an offline run is asked to upload checkpoints.
    """

    def __init__(
        self,
        project: str = "unroll",
        name: str | None = None,
        id: str | None = None,
        offline: bool | None = None,
        save_dir: str | None = None,
        log_model: bool = False,
    ) -> None:
        folder = Path(save_dir or ".").resolve()  # wandb writes from a process that may have started elsewhere
        folder.mkdir(parents=True, exist_ok=True)  # wandb falls back to a temporary folder if it is missing
        if offline is None:
            mode = os.environ.get("WANDB_MODE")
            offline = mode == "offline" or (mode != "online" and not has_key())
        if offline and log_model:
            raise ValueError(
                "W&B: log_model uploads checkpoints, which an offline run cannot; run `wandb login`, or set log_model false"
            )
        self.offline = offline
        self.tables: dict[str, wandb.Table] = {}
        super().__init__(
            name=name,
            project=project,
            id=id or os.environ.get("WANDB_RUN_ID"),
            save_dir=folder,
            log_model=log_model,
            resume="allow",
            mode="offline" if offline else "online",
        )
        self._wandb_init.pop("anonymous", None)  # Lightning passes it on, and W&B warns of it
        self._wandb_init["settings"] = wandb.Settings(silent=True, console="off")

    @property
    def experiment(self) -> Any:
        """The W&B run, begun on first use, on the first rank."""
        begun = self._experiment is not None
        run = super().experiment
        if not begun and isinstance(run, wandb.Run):
            self.begin(run)
        return run

    def begin(self, run: wandb.Run) -> None:
        """Name the summaries, and say where an offline run is kept."""
        for metric in MINIMISED:
            run.define_metric(metric, step_metric="trainer/global_step", summary="min")
        for metric in MAXIMISED:
            run.define_metric(metric, step_metric="trainer/global_step", summary="max")
        self._wandb_init["id"] = run.id
        if self.offline:
            print(
                f"W&B: no API key, so this run is offline; upload it with: wandb sync {shown(Path(run.dir).parent)}",
                file=sys.stderr,
            )

    @rank_zero_only
    def log_text(
        self,
        key: str,
        columns: list[str] | None = None,
        data: list[list[Any]] | None = None,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Add rows to a table that grows."""
        table = self.tables.setdefault(key, wandb.Table(columns=columns, log_mode="INCREMENTAL"))
        for row in data or []:
            table.add_data(*row)
        self.experiment.log({key: table})

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is left and end the run, so that the next one in this process is its own; `test` after `fit` resumes it."""
        super().finalize(status)
        if isinstance(self._experiment, wandb.Run):
            self._experiment.finish(exit_code=0 if status == "success" else 1)
            self._experiment = None
            self.tables.clear()


def has_key() -> bool:
    """Whether W&B could log in, without asking a person or the network."""
    try:
        return bool(wandb.login(prompt=False, verify=False))
    except TypeError:  # an older wandb, which knows no `prompt`
        return bool(wandb.api.api_key)
    except Exception:  # asking must not end a run, whatever state the user's settings are in
        return False
