"""Helpers for Matplotlib figures that are written as PNG bytes."""

import io
import textwrap

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def add_title(figure: Figure, title: str) -> None:
    """A title that stays inside the figure, in as many lines as it takes; names are no formulas."""
    letters = int(figure.get_figwidth() / TITLE_LETTER)
    figure.suptitle("\n".join(textwrap.wrap(title, letters)), parse_math=False)


def figure_to_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG, at its own resolution."""
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


TITLE_LETTER = 0.105
"""Width of a letter of a title, inches."""
