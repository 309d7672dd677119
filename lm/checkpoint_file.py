"""Checkpoint files that are whole or not there: written beside their place, and moved into it when they are on the disk."""

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
