"""Functions as commands: their arguments are those of the command line, their docstrings the help."""

import importlib
import inspect
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Collection, Sequence
from typing import Any

from jsonargparse import ArgumentParser, auto_cli

from experiments.errors import EXPLAINED, UsageError, sentence
from experiments.processor import prepare_processor


def command(functions: Callable[..., None] | dict[str, Any], optional: str | None = None, others: str | None = None) -> None:
    """Run a function, or one of several by its name, with the arguments of the command line.

    What a function requires comes first, without flags; a flag that takes a list may be given several times, and one that is
    true or false may be given alone. An error that one sentence explains ends with status 1, or 2 for a wrong argument; Ctrl-C
    ends with 130, as a shell has it.

    An argument whose type is a class takes a class path and its settings, or a YAML file of them.

    Args:
        functions: one function, or several by name.
        optional: the argument of one function that may follow the required ones without a flag.
        others: the argument of one function that gets the flags which are none of its own, as a list of words.
    """
    prepare_processor()
    settings: list[str] = []
    try:
        if isinstance(functions, dict):
            auto_cli(functions, as_positional=True, exit_on_error=False)
            return
        parameters = inspect.signature(functions).parameters
        settings = [name for name in parameters if name != others]
        flags = [name for name in settings if parameters[name].default is not inspect.Parameter.empty]
        own, rest = divided(sys.argv[1:], flags) if others else (sys.argv[1:], [])
        found = parsed(functions, own, {name for name in (optional, others) if name}, optional)
        functions(**found, **({others: rest} if others else {}))
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except KeyboardInterrupt as error:
        print(f"error: {str(error) or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
    except EXPLAINED as error:
        if sys.flags.dev_mode or (told := sentence(error, settings)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ArgumentError | UsageError) else 1)


def parsed(function: Callable[..., None], words: Sequence[str], skipped: set[str | int], optional: str | None) -> dict[str, Any]:
    """The arguments of a function, but for those that are skipped, and the one that may follow without a flag."""
    parser = ArgumentParser(description=(inspect.getdoc(function) or "").split("\n\nArgs:")[0], exit_on_error=False)
    parser.add_function_arguments(function, as_positional=True, skip=skipped, sub_configs=True)
    if optional:
        parser.add_argument(optional, nargs="?", type=str | None, default=None)
    parameters = inspect.signature(function).parameters.values()
    lists, switches = ({f"--{one.name}" for one in parameters if one.annotation == kind} for kind in (list[str], bool))
    found = parser.parse_args([repeated(word, lists) for word in spelled_out(words, switches)])
    arguments: dict[str, Any] = parser.instantiate(found).as_dict()
    return arguments


def repeated(argument: str, lists: set[str]) -> str:
    """A flag that takes a list as the one that jsonargparse appends with."""
    flag, equals, value = argument.partition("=")
    return f"{flag}+{equals}{value}" if flag in lists else argument


def spelled_out(words: Sequence[str], switches: set[str]) -> list[str]:
    """The words of a command line, with the value of a switch that is given alone."""
    alone = [following.startswith("--") for following in [*words, "--"][1:]]
    return [f"{word}=true" if word in switches and last else word for word, last in zip(words, alone, strict=True)]


def divided(words: Sequence[str], flags: Collection[str]) -> tuple[list[str], list[str]]:
    """The words of a command line that belong to these flags, and those of other flags, each with the words up to the next."""
    own: list[str] = []
    others: list[str] = []
    taking = own
    for word in words:
        if word.startswith("--") or word == "-h":
            taking = own if re.split("[=+]", word)[0].lstrip("-") in (*flags, "h", "help") else others
        taking.append(word)
    return own, others


def import_trusted(modules: str) -> None:
    """Import the modules that a checkpoint may name, given with commas between them."""
    for module in modules.split(","):
        if module.strip():
            importlib.import_module(module.strip())
