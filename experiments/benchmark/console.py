"""Where the tables of the benchmarks are printed."""

from rich.console import Console

WIDE = 160
"""Characters; the widest table, that of translation, takes 149."""


def table_console() -> Console:
    """A console that cuts no table where there is no terminal: rich gives a file or a pipe 80 columns."""
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, WIDE)
    return console
