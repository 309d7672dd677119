"""Where a run writes, and how that is told."""

from pathlib import Path

from lightning import Trainer


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run. All ranks have to ask, for they answer together: one that asked alone would wait for ever."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def shown(path: str | Path) -> str:
    """A path as one would type it here."""
    path = Path(path).resolve()
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
