"""Pictures in a run's folder, which loggers that take images get too."""

from pathlib import Path

from lightning import Trainer
from matplotlib.figure import Figure

from callbacks.paths import shown


def keep_picture(trainer: Trainer, figure: Figure, path: Path, title: str, key: str) -> None:
    """Write a picture, say where, and hand it to loggers; on one rank.

    Args:
        trainer: of the run.
        figure: the picture.
        path: of its file, in the run's folder.
        title: what it shows.
        key: its name for loggers.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    print(f"{title}: {shown(path)}", flush=True)
    hand_to_loggers(trainer, path, key)


def hand_to_loggers(trainer: Trainer, path: Path, key: str) -> None:
    """Give the loggers that take images a picture that is written."""
    for logger in trainer.loggers:
        if hasattr(logger, "log_image"):
            logger.log_image(key=key, images=[str(path)])
