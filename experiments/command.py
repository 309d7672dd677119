"""One function as a command: its arguments are those of the command line, its docstring is the help."""

import sys
from collections.abc import Callable

from jsonargparse import auto_cli


def command(function: Callable[..., None]) -> None:
    """Run a function with the arguments of the command line; an error that one sentence explains ends it with status 1."""
    try:
        auto_cli(function, as_positional=True)
    except (ValueError, TypeError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        sys.stderr.close()
        sys.exit(0)
