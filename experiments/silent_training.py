"""Trainings within a command, which say and keep nothing themselves."""

import logging
from typing import Any

from lightning import Trainer

from experiments.cli import quiet


def silent_trainer(**settings: Any) -> Trainer:
    """A Trainer on the CPU without logs, checkpoints and bars.

    Args:
        settings: others of its settings.
    """
    quiet()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    silent = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False, "logger": False}
    return Trainer(**{**settings, **silent, "accelerator": "cpu"})
