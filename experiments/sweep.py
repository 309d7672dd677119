"""Many runs from one file: every combination of the values that it lists for each setting."""

import itertools
import json
from pathlib import Path
from typing import Any

import yaml


def combinations(path: Path) -> list[list[str]]:
    """The flags of `experiments.run` for each run of a sweep.

    Args:
        path: a YAML file of lists by the names of settings, such as `model.output_dropout: [0.1, 0.3]`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds something else.
    """
    values = contents(path, "sweep", "write one with lines such as model.output_dropout: [0.1, 0.3]")
    if not values or not isinstance(values, dict):
        raise ValueError(f"sweep: {path} holds no settings; write lines such as model.output_dropout: [0.1, 0.3]")
    for name, choices in values.items():
        if not isinstance(choices, list) or not choices:
            raise ValueError(f"sweep: {name} is {choices!r} in {path}, and no list of values to try; write [..., ...]")
    return [[flag(*setting) for setting in zip(values, chosen, strict=True)] for chosen in itertools.product(*values.values())]


def contents(path: Path, kind: str, remedy: str) -> Any:
    """What a YAML file holds.

    Args:
        path: of the file.
        kind: what it is called.
        remedy: what to do where there is none.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no YAML.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{kind}: there is no file {path}; {remedy}")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{kind}: {path} is no YAML ({' '.join(str(error).split())}): correct it there") from error


def flag(name: str, value: Any) -> str:
    """A setting as the command line takes it."""
    return f"--{name}={value if isinstance(value, str) else json.dumps(value)}"
