"""Style, lines, scales and axes that all figures of the page share."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sar_mixmae_jax.run_report.history import Series, nonfinite_steps
from sar_mixmae_jax.utils.errors import escape_unprintable

WIDTH, DPI = 7.5, 160
"""Inches between the margins of an A4 page, where fonts have their nominal size."""

STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a name from a file is a $
}
COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:olive")

TICKS = (1.0, 2.0, 5.0)
"""Multiples of a power of ten that are ticks of a logarithmic axis."""

MAX_NAME = 32
"""Characters of a name in a figure."""

MAX_MARKERS = 40
"""Values of a curve up to which each is marked."""

SeriesByName = Mapping[str, Series]


def short_name(name: str) -> str:
    """Return a name from a file, cut so that it leaves room for the curve."""
    name = escape_unprintable(name)
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def draw_line(axis: Axes, series: Series, colour: str, label: str | None = None) -> None:
    """Draw a curve, with markers if it has few values."""
    marker = "o" if len(series.steps) <= MAX_MARKERS else ""
    axis.plot(*series, color=colour, marker=marker, markersize=2.5, label=label)


def mark_nonfinite(axis: Axes, series: Series) -> None:
    """Draw red crosses on the lower axis at the steps whose value was not finite."""
    steps = nonfinite_steps(series)
    if len(steps):
        bottom, transform = np.zeros(len(steps)), axis.get_xaxis_transform()
        axis.plot(steps, bottom, "rx", markersize=5, transform=transform, clip_on=False, zorder=5)


def set_log_scale(axis: Axes, which: str, values: np.ndarray, digits: Sequence[float]) -> None:
    """Make an axis logarithmic if its positive values span a decade or more.

    Args:
      axis: axis of the figure.
      which: "x" or "y".
      values: along this axis.
      digits: multiples of a power of ten that are ticks if there are fewer than three decades.
    """
    values = values[values > 0]
    if not len(values) or values.max() < 10 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    getattr(axis, f"set_{which}scale")("log")
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(LogLocator(subs=digits if decades < 3 else (1.0,)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ticks.set_minor_formatter(NullFormatter())


def finish_step_axis(axis: Axes, resumed: Sequence[float]) -> None:
    """Label the axis of steps, with a dashed line wherever the run was resumed."""
    low, high = axis.get_xlim()
    for step in resumed:
        if low <= step <= high:
            axis.axvline(step, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axis.set_xlabel("step")
    if axis.get_xscale() == "linear":
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
