"""Folders that are made once, by whichever process needs them first."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

MARKER = "corpus.json"


def cached(cache: Path, description: dict[str, Any], build: Callable[[Path], dict[str, Any]]) -> tuple[Path, dict[str, Any]]:
    """The folder that a description stands for, and the facts that `build` returned when it filled it.

    Args:
        cache: holds a folder for each description.
        description: whatever decides the contents, in types that JSON has.
        build: fills the folder, while other processes wait; after a failure the next one starts anew.
    """
    key = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:20]
    folder = cache / key
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / f"{key}.lock"):
        if not (folder / MARKER).exists():
            folder.mkdir(exist_ok=True)
            partial = folder / f"{MARKER}.partial"
            partial.write_text(json.dumps({**build(folder), **description}, indent=2), encoding="utf-8")
            partial.replace(folder / MARKER)  # last, for it says that all is there
    facts: dict[str, Any] = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    return folder, facts
