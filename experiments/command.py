"""Functions as commands: their arguments are those of the command line, their docstrings the help."""

import importlib
import inspect
import sys
from argparse import ArgumentError
from collections.abc import Callable

from jsonargparse import auto_cli

from experiments.errors import EXPLAINED, sentence


def command(functions: Callable[..., None] | dict[str, Callable[..., None]]) -> None:
    """Run a function, or one of several by its name, with the arguments of the command line.

    A flag that takes a list may be given several times. An error that one sentence explains ends with status 1, or 2 for a
    wrong argument.
    """
    settings: list[str] = []
    arguments = sys.argv[1:]
    if not isinstance(functions, dict):
        parameters = inspect.signature(functions).parameters
        settings = list(parameters)
        lists = {f"--{name}" for name, parameter in parameters.items() if parameter.annotation == list[str]}
        arguments = [repeated(argument, lists) for argument in arguments]
    try:
        auto_cli(functions, args=arguments, as_positional=True, exit_on_error=False)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except EXPLAINED as error:
        if sys.flags.dev_mode or (told := sentence(error, settings)) is None:
            raise
        print(f"error: {told}", file=sys.stderr)
        sys.exit(2 if isinstance(error, ArgumentError) else 1)


def repeated(argument: str, lists: set[str]) -> str:
    """A flag that takes a list as the one that jsonargparse appends with."""
    flag, equals, value = argument.partition("=")
    return f"{flag}+{equals}{value}" if flag in lists else argument


def import_trusted(modules: str) -> None:
    """Import the modules that a checkpoint may name, given with commas between them."""
    for module in modules.split(","):
        if module.strip():
            importlib.import_module(module.strip())
