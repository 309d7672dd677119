"""Errors as one sentence each: the thing, the value, the remedy. What jsonargparse and torch say takes many lines."""

import inspect
import linecache
import re
import sys
from argparse import ArgumentError
from collections.abc import Collection
from difflib import get_close_matches
from pydoc import locate

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lm.base import NonFiniteLossError

EXPLAINED = (ValueError, TypeError, OSError, RuntimeError, ImportError, ArgumentError, MisconfigurationException)
"""Kinds of errors that a wrong setting or file can cause; of these, `sentence` explains those that were raised on purpose."""


class UsageError(ValueError):
    """A wrong argument, said in one sentence."""


TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "text",
    "list": "a list",
    "Sequence": "a list",
    "Iterable": "a list",
    "dict": "a mapping",
    "NoneType": "null",
}
"""What a person calls the types that jsonargparse expects."""


def sentence(error: BaseException, settings: Collection[str] = ()) -> str | None:
    """An error in one sentence; None where it looks like a bug, whose traceback is worth more.

    Args:
        error: as it was caught.
        settings: names that the command line takes, for a remedy that proposes one.
    """
    if isinstance(error, ArgumentError) or origin(error).startswith("jsonargparse"):
        cause = error
        while cause.__cause__ is not None and origin(cause).startswith(("jsonargparse", "lightning")):
            cause = cause.__cause__
        wrapped = cause is not error and not origin(cause).startswith(("jsonargparse", "importlib"))
        return sentence(cause) if wrapped and raised(cause) else of_setting(str(error), settings)
    if isinstance(error, NonFiniteLossError | FileNotFoundError) or raised(error):
        return " ".join(str(error).split())
    return None


def origin(error: BaseException) -> str:
    """The module that raised an error."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else str(trace.tb_frame.f_globals.get("__name__", ""))


def raised(error: BaseException) -> bool:
    """Whether a `raise` statement made an error, as those do that explain themselves, and not a failing expression."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and linecache.getline(trace.tb_frame.f_code.co_filename, trace.tb_lineno).lstrip().startswith(
        "raise"
    )


def of_setting(message: str, settings: Collection[str]) -> str:
    """What jsonargparse says of a wrong setting: its name, its value, and what would be right.

    Its message is a tree. The first branch is that of the class which the setting belongs to; the others say that it could
    also be a list, or null.
    """
    if found := re.search(r"does not accept option '(\S+)'|unrecognized arguments: (?:--)?([^\s=]+)", message):
        name = found[1] or found[2]
        return f"{name}: there is no such setting{proposal(name, settings)}"
    if found := re.search(r"File does not exist: '(.*)'", message):
        return f"config: there is no file {found[1]}; python -m experiments.run lists the experiments"
    if found := re.search(r"Problems parsing config: (.*)|Unexpected config: (.*)", message, re.DOTALL):
        return f"config: a file holds no YAML mapping: {' '.join((found[1] or found[2]).split())}"
    if found := re.search(r'expected "subcommand" to be one of {(.*)}', message):
        return f"nothing to do: say one of {found[1].replace(',', ', ')}"
    if found := re.search(r"arguments are required: (.*)", message):
        names = " and ".join(re.sub(r"\w+\.", "", found[1]).split(", "))
        remedy = "add --config FILE; python -m experiments.run lists the experiments" if "." in found[1] else "--help tells more"
        return f"{names}: not given; {remedy}"

    if found := re.search(r"Option '(\S+)' is not accepted", message):
        inside = re.match(r"\. Got value: Namespace\(class_path='([\w.]+)'", message[found.end() :])
        owner = inside[1] if inside else re.findall(r"class_path '([\w.]+)'", message[: found.start()])[-1]
        return f"{path_to(message, found.start(), found[1])}: {owner} has no such setting{proposal(found[1], arguments(owner))}"
    if found := re.search(r"module '(\S+)' has no attribute '(\w+)'", message):
        near = proposal(found[2], [name for name in dir(sys.modules.get(found[1])) if name[0].isupper()])
        return f"{path_to(message, found.start())}: there is no {found[2]} in {found[1]}{near}"
    if found := re.search(r"No module named '(\S+)'", message):
        return (
            f"{path_to(message, found.start())}: there is no module {found[1]}; correct the name, or put its folder on PYTHONPATH"
        )
    if found := re.search(r"Expected a dot import path string: (.*)", message):
        return f"{path_to(message, found.start())}: {found[1]} names no class; give its module too, such as lm.LanguageModel"
    if found := re.search(r"Expected an instantiatable class, but (\S+) is abstract", message):
        return f"{path_to(message, found.start())}: {found[1]} is only the common base; name the class you mean first"
    if found := re.search(r"Import path (?P<path>\S*) ?does not correspond to a subclass of (?P<base>\w+)", message):
        path = found["path"] or value_in(message, found.start()).strip("'")
        return f"{path_to(message, found.start())}: {path} is not a {found['base']}; name a class that is"
    if expected := re.findall(r"Expected a (<class '[\w.]+'>|typing\.Literal\[.*?\])", innermost(message)):
        kinds = " or ".join(dict.fromkeys(kind(name) for name in expected))
        first = message.index(f"Expected a {expected[0]}")
        return f"{path_to(message, first)}: {value_in(message, first)} is not {kinds}"
    return " ".join(message.split())


def path_to(message: str, position: int, last: str = "") -> str:
    """The full name of the setting that a place in jsonargparse's message is about."""
    return ".".join([*re.findall(r'Parser key "([\w.]+)"', message[:position]), *([last] if last else [])])


def value_in(message: str, position: int) -> str:
    """The value that a place in jsonargparse's message is about."""
    found = re.search(r"(?:Got value|Given value): (.*?)(?:\. Got value: .*)?$", message[position:], re.MULTILINE)
    return repr(found[1]) if found else "its value"


def innermost(message: str) -> str:
    """The alternatives of the deepest setting in jsonargparse's message."""
    start = message.rfind('Parser key "')
    return re.split(r"\n\s*Given value type|Got value", message[start:])[0]


def kind(expected: str) -> str:
    """A type as a person calls it."""
    if literal := re.match(r"typing\.Literal\[(.*)\]", expected):
        return f"one of {literal[1]}"
    name = expected.split("'")[1].rpartition(".")[2]
    return TYPES.get(name, f"a {name}")


def arguments(path: str) -> list[str]:
    """The arguments of a class, named by its path."""
    target = locate(path)
    return [name for name in inspect.signature(target).parameters if name != "self"] if callable(target) else []


def proposal(name: str, known: Collection[str]) -> str:
    """A remedy for a wrong name: those it resembles, or all, if they are few."""
    if near := get_close_matches(name, known, n=3):
        return f"; did you mean {' or '.join(near)}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= 25 else ""
