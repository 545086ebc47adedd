"""Helpers for Matplotlib figures that are written as PNG files."""

import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db

NODATA_COLOUR = "tab:orange"
"""Colour of nodata in all pictures: no value of the grey and diverging scales has it."""

NO_CLASS = 255
"""Value of a map of classes where nothing was measured."""

CLASS_PAIR = ("0.85", "#1f6fb4")
"""Colours of two classes: the second is the one that is looked for, such as water."""
CLASS_COLOURS = tuple(np.delete(colormaps["tab20"](np.arange(20)), 2, axis=0)[:, :3].tolist())
"""Colours of more classes, without the orange of nodata."""

CHARACTER_WIDTH = 0.105
"""Mean width of a character of a figure's title in inches."""

CHARACTER_WIDTH_PER_POINT, LEGEND_KEY_WIDTH = 0.0085, 0.6
"""Inches: mean width of a character for every point of its font, and of the rest of an entry of a
legend."""


def class_colours(count: int) -> np.ndarray:
    """Return the colours of a number of classes, (count, 4) from 0 to 1."""
    names = CLASS_PAIR if count == 2 else CLASS_COLOURS
    return to_rgba_array([names[number % len(names)] for number in range(count)])


def add_title(figure: Figure, title: str, **placement: Any) -> None:
    """Set the title of a figure, every line wrapped to its width.

    Math mode is off: a `$` in a name from a file is a `$`.

    Args:
      figure: of any size.
      title: text, of one or more lines.
      **placement: position, alignment and font, see `Figure.suptitle`.
    """
    characters = int(figure.get_figwidth() / CHARACTER_WIDTH)
    lines = [part for line in title.split("\n") for part in textwrap.wrap(line, characters)]
    figure.suptitle("\n".join(lines), parse_math=False, **placement)


PANEL_FONT = 9.5
"""Size of the font of a panel's title, points."""


def set_panel_title(axis: Axes, title: str) -> None:
    """Set the title of one of several panels, with new lines after ": " and where a line is full.

    Args:
      axis: panel of a figure with columns of equal width.
      title: text.
    """
    spec, figure = axis.get_subplotspec(), axis.get_figure()
    assert spec is not None
    assert isinstance(figure, Figure)
    width = figure.get_figwidth() / spec.get_gridspec().ncols
    characters = int(width / (CHARACTER_WIDTH_PER_POINT * PANEL_FONT))
    wrapper = textwrap.TextWrapper(characters, break_on_hyphens=False)
    lines = [line for part in title.split(": ") for line in wrapper.wrap(part)]
    axis.set_title("\n".join(lines), fontsize=PANEL_FONT, parse_math=False)


def legend_columns(labels: Sequence[str], width: float, font_size: float = 8) -> int:
    """Return the number of columns of a legend that fit into a width, at most 3.

    Args:
      labels: labels of the entries, at least one.
      width: width of the legend, inches.
      font_size: size of the font, points.
    """
    longest = LEGEND_KEY_WIDTH + CHARACTER_WIDTH_PER_POINT * font_size * max(map(len, labels))
    return min(3, max(1, int(width / longest)))


def figure_to_png(figure: Figure) -> bytes:
    """Render a figure as PNG bytes at its own resolution."""
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def block_average(db: np.ndarray, block: int) -> np.ndarray:
    """Average linear power over square blocks, as multi-looking does.

    Args:
      db: (row, column) backscatter in dB, NaN = nodata.
      block: side of a block in pixels; 1 returns `db` itself.

    Returns:
      (ceil(row / block), ceil(column / block)) dB; NaN where no pixel of a block is valid.
    """
    if block == 1:
        return db
    rows, columns = (-(-size // block) * block for size in db.shape)
    power = np.full((rows, columns), np.nan)
    power[: db.shape[0], : db.shape[1]] = db_to_linear(db.astype(np.float64))
    blocks = power.reshape(rows // block, block, columns // block, block)
    valid = np.isfinite(blocks).sum((1, 3))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(valid > 0, linear_to_db(np.nansum(blocks, (1, 3)) / valid), np.nan)
