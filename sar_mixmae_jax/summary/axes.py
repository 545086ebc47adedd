"""What all figures of the page share: style, scales, the axis of steps."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sar_mixmae_jax.errors import plain
from sar_mixmae_jax.summary.history import Series, finite, lost

WIDTH, DPI = 7.5, 160
"""Inches between the margins of an A4 page, where letters have the size that is said here."""

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
    "text.parse_math": False,  # names come from files: a $ in them is a $
}
COLOURS = ("tab:blue", "tab:red", "tab:green", "tab:purple", "tab:brown", "tab:olive")
LONGEST = 32
"""Characters of a name in a figure."""

Metrics = Mapping[str, Series]


def drawable(series: Series | None) -> bool:
    """Whether there is enough for a curve: two finite values."""
    return series is not None and len(finite(series).values) > 1


def stem(name: str) -> str:
    """A metric without its band or part: "bias_db" of "bias_db/VH"."""
    return name.partition("/")[0]


def shown_name(name: str) -> str:
    """A name of a file in a figure, where a long one would leave no room for the curve."""
    name = plain(name)
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"


def draw_line(axis: Axes, series: Series, colour: str, label: str | None = None) -> None:
    """A line, with its points where they are few."""
    marker = "o" if len(series.steps) <= 40 else ""
    axis.plot(*series, color=colour, marker=marker, markersize=2.5, label=label)


def mark_gaps(axis: Axes, series: Series) -> None:
    """Red crosses on the axis at the steps whose value was not finite."""
    steps = lost(series)
    if len(steps):
        bottom, place = np.zeros(len(steps)), axis.get_xaxis_transform()
        axis.plot(steps, bottom, "rx", markersize=5, transform=place, clip_on=False, zorder=5)


def log_scale(axis: Axes, which: str, values: np.ndarray, digits: Sequence[float]) -> None:
    """A logarithmic axis, where positive values span enough for one, with plain numbers."""
    values = values[values > 0]
    if not len(values) or values.max() < 10 * values.min():
        return
    decades = np.log10(values.max() / values.min())
    getattr(axis, f"set_{which}scale")("log")
    ticks = axis.xaxis if which == "x" else axis.yaxis
    ticks.set_major_locator(LogLocator(subs=digits if decades < 3 else (1.0,)))
    ticks.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    ticks.set_minor_formatter(NullFormatter())


def finish(axis: Axes, resumed: Sequence[float]) -> None:
    """The axis of steps, with a line wherever the run was resumed."""
    low, high = axis.get_xlim()
    for step in resumed:
        if low <= step <= high:
            axis.axvline(step, color="0.3", linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    axis.set_xlabel("step")
    if axis.get_xscale() == "linear":
        axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
