"""Where a translation looked: attention as a picture with tokens on both axes, and as a table for a terminal."""

import warnings
from collections.abc import Sequence

import numpy as np
from matplotlib import font_manager, rcParams
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text
from torch import Tensor

MOST_TOKENS = 100
"""Of either side; the rest of a longer sentence is left out."""
LONGEST_LABEL = 16
CELL = 0.3
"""Inches from one token to the next: two lines of text."""
LETTER = 0.09
"""Inches of a letter."""
SHADES = ((0.75, "█"), (0.5, "▓"), (0.25, "▒"), (0.05, "░"))
"""The least attention that has a shade."""


def attention_figure(attention: Tensor, source: Sequence[str], target: Sequence[str]) -> Figure:
    """A heat map: source tokens from left to right, target tokens from top to bottom, white for 0 and dark for 1.

    It grows with the number of tokens, so that they can be read. Characters that matplotlib's font lacks are taken from any
    installed one; those that none has are drawn as □, with a warning.

    Args:
        attention: `(target_time, source_time)`, a row of weights for each target token.
        source: tokens.
        target: tokens.

    Raises:
        ValueError: if there are not as many tokens as weights, or none.
    """
    weights, columns, rows = labelled(attention, source, target)
    families, missing = fonts_for(set("".join(columns + rows)))
    if missing:
        warnings.warn(
            f"attention_figure: no installed font has {''.join(sorted(missing)[:10])} ({len(missing)} characters in all): drawn"
            " as □; install one, such as fonts-noto-cjk on Debian and Ubuntu for Chinese, Japanese and Korean",
            stacklevel=2,
        )
        boxes = str.maketrans(dict.fromkeys(missing, "□"))
        columns, rows = ([text.translate(boxes) for text in texts] for texts in (columns, rows))
    width, height = (max(map(cell_len, texts)) * LETTER for texts in (rows, columns))
    size = (len(columns) * CELL + width + 1.2, max(len(rows) * CELL + height + 0.3, 1.2))  # with room for the colour bar
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.xaxis.tick_top()
    axes.set_xticks(range(len(columns)), columns, fontfamily=families, parse_math=False)
    axes.set_yticks(range(len(rows)), rows, fontfamily=families, parse_math=False)
    for text in axes.get_xticklabels():
        if height > CELL and len(text.get_text()) > 1:  # single characters stand upright beside longer tokens that cannot
            text.set_rotation(90)
    axes.set_xticks([column + 0.5 for column in range(len(columns) - 1)], minor=True)
    axes.set_yticks([row + 0.5 for row in range(len(rows) - 1)], minor=True)
    axes.grid(which="minor", color="0.9")
    axes.tick_params(which="both", length=0)
    figure.colorbar(image, label="attention", ticks=[0, 0.5, 1], shrink=min(1.0, 2 / (len(rows) * CELL)))
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """A figure for those who take arrays: `(height, width, 3)`, red, green and blue from 0 to 255."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def attention_text(attention: Tensor, source: Sequence[str], target: Sequence[str]) -> Table:
    """A table for a terminal: for each target token the shades of its weights, and the source token with the largest.

    Source tokens are written downwards over the shades. A terminal too narrow for these cuts them off, and nothing else.

    Args:
        attention: `(target_time, source_time)`, a row of weights for each target token.
        source: tokens.
        target: tokens.

    Raises:
        ValueError: if there are not as many tokens as weights, or none.
    """
    weights, columns, rows = labelled(attention, source, target)
    wide = any(cell_len(letter) == 2 for text in columns for letter in text)
    cell = 2 if wide or len(columns) <= 24 else 1  # so that most sentences fit into 80 letters
    height = max(map(len, columns))
    lines = zip(*(text.rjust(height) for text in columns), strict=True)
    heading = "\n".join("".join(letter + " " * (cell - cell_len(letter)) for letter in line) for line in lines)
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column(no_wrap=True)
    table.add_column(Text(heading, no_wrap=True, overflow="crop"))
    table.add_column(no_wrap=True)
    for token, row in zip(rows, weights, strict=True):
        shades = "".join(next((shade for least, shade in SHADES if weight >= least), " ") * cell for weight in row)
        largest = f"{columns[row.index(max(row))]} {max(row):.2f}"
        table.add_row(Text(token), Text(shades, no_wrap=True, overflow="crop"), Text(largest))
    return table


def labelled(attention: Tensor, source: Sequence[str], target: Sequence[str]) -> tuple[list[list[float]], list[str], list[str]]:
    """The weights as numbers, with what to write over their columns and before their rows.

    Raises:
        ValueError: if there are not as many tokens as weights, or none.
    """
    if tuple(attention.shape) != (len(target), len(source)) or not attention.numel():
        raise ValueError(
            f"attention: {len(target)} target tokens over {len(source)} source tokens take weights of that shape, and at least"
            f" one; got {tuple(attention.shape)}"
        )
    weights: list[list[float]] = attention.detach()[:MOST_TOKENS, :MOST_TOKENS].float().tolist()
    return weights, [label(token) for token in source[:MOST_TOKENS]], [label(token) for token in target[:MOST_TOKENS]]


def label(token: str) -> str:
    """A token with its white space to be seen, and not too long."""
    visible = "".join("␣" if letter.isspace() or not letter.isprintable() else letter for letter in token)
    return visible if len(visible) <= LONGEST_LABEL else visible[: LONGEST_LABEL - 1] + "…"


def fonts_for(characters: set[str]) -> tuple[list[str], set[str]]:
    """Font families that together have the characters, matplotlib's own first, and the characters that no font has."""
    families = list(rcParams["font.family"])
    missing = characters - characters_in(font_manager.findfont(font_manager.FontProperties()), characters)
    while missing:
        path, found = best_font(missing)
        if not found:
            break
        if all(entry.fname != path for entry in font_manager.fontManager.ttflist):  # installed since matplotlib made its list
            font_manager.fontManager.addfont(path)
        families.append(font_manager.get_font(path).family_name)
        missing -= found
    return families, missing


def best_font(characters: set[str]) -> tuple[str, set[str]]:
    """The installed font file with most of the characters, and which these are."""
    best, most = "", set[str]()
    for path in sorted(font_manager.findSystemFonts()):
        found = characters_in(path, characters)
        if len(found) > len(most):
            best, most = path, found
        if most == characters:
            break
    return best, most


def characters_in(path: str, characters: set[str]) -> set[str]:
    """Those of the characters that a font file has."""
    try:
        font = font_manager.get_font(path)
    except (OSError, RuntimeError):  # a damaged file, or of a kind that matplotlib does not read
        return set()
    if not font.scalable or "lastresort" in font.family_name.lower().replace(" ", ""):  # which has a box for everything
        return set()
    return {letter for letter in characters if font.get_char_index(ord(letter))}
