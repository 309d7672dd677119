"""Folders that are made once, by whichever process needs them first."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from datamodules.fetching import is_full_disk

MARKER = "corpus.json"


def cached(cache: Path, description: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The folder that a description stands for, and the facts that `build` returned when it filled it.

    Args:
        cache: holds a folder for each description.
        description: whatever decides the contents, in types that JSON has.
        build: fills the folder, while other processes wait; after an interruption it finds there what the one before it left.

    Raises:
        OSError: if the disk is full.
    """
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (folder / MARKER).exists():
            folder.mkdir(exist_ok=True)
            try:
                facts = build(folder)
                # Last, for it says that all is there.
                write_whole(folder / MARKER, json.dumps({**facts, **description}, indent=2))
            except OSError as error:
                if not is_full_disk(error):
                    raise
                raise OSError(
                    f"cache: the disk of {cache} is full: make room, or set data.cache to a folder on another;"
                    " the next run goes on with what is there"
                ) from error
    found: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    return folder, found


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there whole or not at all, whatever ends the process or the machine."""
    partial = path.with_name(f"{path.name}.partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
