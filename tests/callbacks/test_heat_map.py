"""Attention to look at: what the picture and the table show, and that every label can be read."""

import io
import warnings
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from matplotlib import font_manager, get_data_path
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text as Label
from rich.cells import cell_len
from rich.console import Console
from torch import Tensor

from callbacks.heat_map import attention_figure, attention_text, pixels

SOURCE = ["a", "man", "with", "an", "orange", "hat", "<eos>"]
TARGET = ["ein", "mann", "mit", "einem", "orangefarbenen", "hut", "<eos>"]
CHINESE = [*"嘿，兰迪，你吃过午饭了吗？", "[SEP]"]


def attention(target: int, source: int) -> Tensor:
    return torch.randn(target, source, generator=torch.Generator().manual_seed(0)).softmax(dim=1)


def picture(figure: Figure) -> Tensor:
    """Pixels `(height, width, 4)`; nothing that matplotlib warns of may happen on the way."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.savefig(file, format="png", dpi=100)
    file.seek(0)
    return torch.from_numpy(imread(file))


def drawn(figure: Figure) -> Tensor:
    """The numbers behind the shades."""
    array = figure.axes[0].images[0].get_array()
    assert array is not None
    return torch.tensor(array.tolist())


def labels(figure: Figure) -> tuple[list[Label], list[Label]]:
    axes = figure.axes[0]
    return axes.get_xticklabels(), axes.get_yticklabels()


def texts(figure: Figure) -> tuple[list[str], list[str]]:
    columns, rows = ([label.get_text() for label in side] for side in labels(figure))
    return columns, rows


def printed(table: object, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines())


# The picture


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_picture_shows_the_weights_under_their_tokens(dtype: torch.dtype) -> None:
    weights = attention(7, 7).to(dtype).requires_grad_()
    figure = attention_figure(weights, SOURCE, TARGET)
    assert drawn(figure).equal(weights.detach().float())
    assert figure.axes[0].images[0].get_clim() == (0, 1)
    assert texts(figure) == (SOURCE, TARGET)


def test_pixels_are_those_of_the_picture() -> None:
    figure = attention_figure(attention(7, 7), SOURCE, TARGET)
    assert torch.tensor(pixels(figure)).equal((picture(figure)[..., :3] * 255).round().to(torch.uint8))


def test_the_first_target_token_is_at_the_top_and_much_attention_is_dark() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    figure = attention_figure(weights, ["a", "b"], ["c", "d"])
    pixels = picture(figure)
    place = figure.axes[0].transData.transform([(column, row) for row in range(2) for column in range(2)])
    height = pixels.shape[0]
    shades = [pixels[height - round(y), round(x), :3].mean().item() for x, y in place]
    assert shades[0] < shades[3] < shades[1]
    assert shades[1] == shades[2] > 0.95
    first, second = labels(figure)[1]
    assert first.get_window_extent().y0 > second.get_window_extent().y1


@pytest.mark.parametrize(("source", "target"), [(1, 1), (5, 5), (40, 40), (40, 2), (2, 40)])
def test_labels_lie_within_the_picture_and_apart(source: int, target: int) -> None:
    words = ["I", "am", "orange", "starring", "[UNK]", ",", "MWMWMWMW", "unexceptionability"]
    figure = attention_figure(attention(target, source), (words * 5)[:source], (words[::-1] * 5)[:target])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    columns, rows = ([label.get_window_extent() for label in side] for side in labels(figure))
    for box in columns + rows:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert all(left.x1 < right.x0 for left, right in pairwise(columns))
    assert all(upper.y0 > lower.y1 for upper, lower in pairwise(rows))


def test_short_tokens_and_characters_stand_upright_and_words_are_turned() -> None:
    def turned(source: list[str]) -> list[float]:
        return [label.get_rotation() for label in labels(attention_figure(attention(1, len(source)), source, ["x"]))[0]]

    assert turned(["a", "cat", "."]) == [0, 0, 0]
    assert turned(["a", "horse", "."]) == [0, 90, 0]


def test_labels_show_white_space_and_are_neither_mathematics_nor_long() -> None:
    source = ["$x$", "a_b", "\\frac", " the", "\n", "", "Donaudampfschifffahrt", "<pad>"]
    figure = attention_figure(attention(1, 8), source, ["100 %"])
    assert texts(figure) == (["$x$", "a_b", "\\frac", "␣the", "␣", "", "Donaudampfschif…", "<pad>"], ["100␣%"])
    picture(figure)
    assert not any(label.get_parse_math() for side in labels(figure) for label in side)


def test_a_very_long_sentence_is_cut_at_a_hundred_tokens() -> None:
    weights = attention(3, 3000)
    figure = attention_figure(weights, [str(number) for number in range(3000)], ["a", "b", "c"])
    columns, rows = texts(figure)
    assert (columns[-1], len(columns), rows) == ("99", 100, ["a", "b", "c"])
    assert drawn(figure).equal(weights[:, :100])


# Fonts


def test_characters_that_no_font_has_are_boxes_and_one_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.ttf"
    damaged.write_text("no font")
    last_resort = Path(get_data_path()) / "fonts/ttf/LastResortHE-Regular.ttf"  # has a box for everything
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(damaged), str(last_resort)])
    with pytest.warns(UserWarning, match="no installed font has .*嘿.* in all.*install one, such as fonts-noto-cjk") as caught:
        figure = attention_figure(attention(len(CHINESE), 2), ["hey", "!"], CHINESE)
    assert len(caught) == 1
    assert texts(figure) == (["hey", "!"], ["□"] * (len(CHINESE) - 1) + ["[SEP]"])
    picture(figure)


def test_a_font_that_matplotlib_does_not_know_yet_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that comes with matplotlib stands in for a font installed since matplotlib made its list."""
    path = Path(get_data_path()) / "fonts/ttf/STIXGeneral.ttf"
    others = [entry for entry in font_manager.fontManager.ttflist if entry.name != "STIXGeneral"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", others)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [str(path)])
    missing = "ᶁ"
    assert not font_manager.get_font(font_manager.findfont("DejaVu Sans")).get_char_index(ord(missing))
    figure = attention_figure(attention(1, 2), [missing, "□"], ["a"])
    assert labels(figure)[0][0].get_fontfamily()[1:] == ["STIXGeneral"]
    picture(figure)


@pytest.mark.skipif(
    not any(font_manager.get_font(path).get_char_index(ord("嘿")) for path in font_manager.findSystemFonts()),
    reason="no font with Chinese characters is installed",
)
def test_chinese_is_drawn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = attention_figure(attention(2, len(CHINESE)), CHINESE, ["hey", "!"])
    assert texts(figure)[0] == CHINESE
    picture(figure)


# The table


def test_the_table_by_hand() -> None:
    weights = torch.tensor([[0.9, 0.06, 0.04], [0.02, 0.3, 0.68]])
    assert printed(attention_text(weights, ["a", "cat", "]"], ["eine", "Katze"])).splitlines() == [
        "",
        "            c",
        "            a",
        "          a t ]",
        " ─────────────────────────",
        "  eine    ██░░     a 0.90",
        "  Katze     ▒▒▓▓   ] 0.68",
    ]


def test_wide_characters_keep_the_columns_in_line() -> None:
    weights = torch.eye(len(CHINESE))
    lines = printed(attention_text(weights, CHINESE, CHINESE), width=120).splitlines()
    heading = next(line for line in lines if "嘿" in line)
    start = cell_len(heading[: heading.index("嘿")])
    rows = [line for line in lines if "██" in line]
    assert [cell_len(line[: line.index("██")]) - start for line in rows] == [2 * place for place in range(len(CHINESE))]


def test_tokens_are_not_markup() -> None:
    table = printed(attention_text(torch.ones(2, 1), ["[bold]"], ["[/red]", "[SEP]"]))
    assert "[/red]" in table
    assert table.count("[bold] 1.00") == 2


def test_a_long_sentence_fits_80_letters_and_a_narrow_terminal_still_shows_where_each_token_looked() -> None:
    source = [f"w{number}" for number in range(40)]
    weights = torch.eye(40) * 0.9 + 0.0025
    lines = printed(attention_text(weights, source, source), width=80).splitlines()
    assert sum("█" in line for line in lines) == 40
    narrow = printed(attention_text(weights, source, source), width=40).splitlines()
    assert sum(line.endswith("0.90") for line in narrow) == 40
    assert max(map(len, narrow)) <= 40
    assert len(narrow) == len(lines)


def test_a_row_of_no_number_is_empty() -> None:
    assert "█" not in printed(attention_text(torch.full((1, 2), torch.nan), ["a", "b"], ["c"]))


@pytest.mark.parametrize("show", [attention_figure, attention_text])
@pytest.mark.parametrize("shape", [(3, 2), (2, 3, 1), (6,)])
def test_weights_of_another_shape_are_refused(show: type, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"2 target tokens over 3 source tokens take weights of that shape.*got \("):
        show(torch.ones(shape), ["a", "b", "c"], ["d", "e"])


def test_no_token_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        attention_figure(torch.ones(0, 2), ["a", "b"], [])
