"""A module's constructor arguments as plain data, and the module from them: what makes a checkpoint self-contained.

A class or a partial becomes `{"class_path": ..., "init_args": ...}`, whether it came from YAML or from Python; a dataclass
the same with `"built": True`. Such data loads with `weights_only=True`, and a class path is only ever imported from this
project's packages, from torch, or from modules the caller has already imported, the standard library apart.
"""

import dataclasses
import functools
import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

TRUSTED_PACKAGES = ("lm", "mt", "datamodules", "callbacks", "experiments", "torch")


def by_name(cls: type, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a constructor by name, those that it passes on as `**kwargs` among them.

    Raises:
        ValueError: if some have no name, for it passes them on as `*args`.
    """
    signature = inspect.signature(cls.__init__)  # type: ignore[misc]
    given = signature.bind_partial(None, *args, **kwargs).arguments
    named: dict[str, Any] = {}
    for name, value in list(given.items())[1:]:
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            raise ValueError(
                f"{cls.__name__}: a checkpoint keeps arguments by name, and *{name} has none; give {value} by keyword"
            )
        named |= value if kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return named


def describe(value: Any, name: str = "argument") -> Any:
    """An argument as numbers, strings, lists and dictionaries.

    Raises:
        ValueError: if it cannot be named, as a lambda cannot.
    """
    if value is None or isinstance(value, bool):
        return value
    for kind in (int, float, str):
        if isinstance(value, kind):  # numpy's float64 is a float, and `weights_only` refuses it
            return kind(value)
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, list | tuple):
        return [describe(item, name) for item in value]
    if isinstance(value, dict):
        return {key: describe(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, functools.partial):
        named, positional = value.func, value.args
        # jsonargparse's partials call its own instantiator, with the class among their arguments.
        if getattr(named, "__module__", "").startswith("jsonargparse"):
            named, positional = next(part for part in value.args if inspect.isclass(part)), ()
        if positional:
            raise ValueError(f"{name}: a checkpoint keeps arguments by name; give the partial's {positional} by keyword")
        return class_path(named, name) | {"init_args": describe(value.keywords, name)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return class_path(type(value), name) | {"init_args": describe(fields, name), "built": True}
    return class_path(value, name) | {"init_args": {}}


def class_path(value: Any, name: str) -> dict[str, Any]:
    """Where a class or function can be imported from.

    Raises:
        ValueError: if it cannot be imported by name.
    """
    path = getattr(value, "__qualname__", None)
    if path is None or "." in path or path == "<lambda>":
        raise ValueError(
            f"{name}: a checkpoint cannot name {value!r}; pass a class or function of a module, or functools.partial of one"
        )
    return {"class_path": f"{value.__module__}.{path}"}


def rebuild(description: Any) -> Any:
    """What `describe` described: a class path becomes the class, a partial of it, or a dataclass built from it.

    Raises:
        ValueError: if a class path is not to be trusted, names nothing, or would be called without being a dataclass.
    """
    if isinstance(description, list):
        return [rebuild(item) for item in description]
    if not isinstance(description, dict):
        return description
    if "class_path" not in description:
        return {key: rebuild(item) for key, item in description.items()}
    target = trusted(description["class_path"])
    arguments = rebuild(description["init_args"])
    if description.get("built"):
        if not (isinstance(target, type) and dataclasses.is_dataclass(target)):
            raise ValueError(
                f"checkpoint: it would call {description['class_path']}, which is no dataclass; do not trust this file"
            )
        return target(**arguments)
    return functools.partial(target, **arguments) if arguments else target


def trusted(path: str) -> Any:
    """The class or function behind a class path of a checkpoint.

    Raises:
        ValueError: if its module is neither ours, nor torch's, nor imported already; if it is one of Python's or torch's own
            functions, some of which run programs; or if there is no such name.
    """
    module, _, name = path.rpartition(".")
    package = module.split(".")[0]
    if package in sys.stdlib_module_names:
        raise ValueError(f"checkpoint: it names {path}, and no model is made of Python's own functions; do not trust this file")
    if package not in TRUSTED_PACKAGES and module not in sys.modules:
        raise ValueError(
            f"checkpoint: it names {path}, which will not be imported unseen; if you trust it, import {module} first"
        )
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"checkpoint: it names {path}, which does not exist here; import or install what defines it") from error
    if package == "torch" and not (isinstance(target, type) and issubclass(target, nn.Module | Optimizer | LRScheduler)):
        raise ValueError(f"checkpoint: it names {path}, which is no module, optimizer or scheduler; do not trust this file")
    return target
