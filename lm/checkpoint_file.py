"""Checkpoint files: whole or not there, since they are written beside their place and moved into it; and read safely."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """For `Trainer(plugins=...)`. A process that dies while it writes leaves the file that was there before."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write a checkpoint; a path with a protocol, such as s3://, is left to Lightning.

        Raises:
            OSError: if it cannot be written; what was there before is still there.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        half = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with half.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        except (OSError, RuntimeError) as error:  # torch's writer turns a failed write into a RuntimeError
            half.unlink(missing_ok=True)
            reason = error.strerror if isinstance(error, OSError) else error.__context__ or error
            raise OSError(
                f"checkpoint: {path} cannot be written ({reason}); what was written before is intact: make room, or give the"
                " run another folder, and resume with --ckpt_path last"
            ) from error
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # or a crash of the machine could undo the move
        os.close(folder)


def read_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The contents of a checkpoint of a SequenceModule.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or the checkpoint of another module.
    """
    checkpoint = read_file(path, map_location)
    if not isinstance(checkpoint, dict) or not {"module", "tokenizers", "state_dict"} <= checkpoint.keys():
        raise ValueError(f"checkpoint: {path} was not written by this project's models, which name their class in it")
    return checkpoint


def read_file(path: str | Path, map_location: Any = "cpu") -> Any:
    """What a file holds, of whatever module, loaded with `weights_only=True`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: there is no file {path}; a run writes its own into RUN/checkpoints")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds, none of which names the file
        raise ValueError(
            f"checkpoint: {path} cannot be read ({type(error).__name__}): it is damaged, or no checkpoint"
        ) from error
