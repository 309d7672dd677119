"""Functions as commands: their arguments are those of the command line, their docstrings the help."""

import importlib
import inspect
import sys
from argparse import ArgumentError
from collections.abc import Callable
from typing import Any

from jsonargparse import ArgumentParser, auto_cli

from experiments.errors import EXPLAINED, sentence
from experiments.processor import prepare_processor


def command(functions: Callable[..., None] | dict[str, Any], optional: str | None = None) -> None:
    """Run a function, or one of several by its name, with the arguments of the command line.

    What a function requires comes first, without flags; a flag that takes a list may be given several times. An error that
    one sentence explains ends with status 1, or 2 for a wrong argument; Ctrl-C ends with 130, as a shell has it.

    An argument whose type is a class takes a class path and its settings, or a YAML file of them.

    Args:
        functions: one function, or several by name.
        optional: the argument of one function that may follow the required ones without a flag.
    """
    prepare_processor()
    settings: list[str] = []
    try:
        if isinstance(functions, dict):
            auto_cli(functions, as_positional=True, exit_on_error=False)
            return
        parameters = inspect.signature(functions).parameters
        settings = list(parameters)
        lists = {f"--{name}" for name, parameter in parameters.items() if parameter.annotation == list[str]}
        parser = ArgumentParser(description=(inspect.getdoc(functions) or "").split("\n\nArgs:")[0], exit_on_error=False)
        parser.add_function_arguments(functions, as_positional=True, skip={optional} if optional else None, sub_configs=True)
        if optional:
            parser.add_argument(optional, nargs="?", type=str | None, default=None)
        arguments = parser.parse_args([repeated(argument, lists) for argument in sys.argv[1:]])
        functions(**parser.instantiate(arguments).as_dict())
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
