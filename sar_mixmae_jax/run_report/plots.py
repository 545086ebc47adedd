"""What all figures of the page share: style, scales, the axis of steps."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from sar_mixmae_jax.run_report.history import Series, finite, lost
from sar_mixmae_jax.utils.errors import escape_unprintable
from sar_mixmae_jax.utils.plotting import figure_to_png

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

ShownMetrics = Mapping[str, Series]


def drawable(series: Series | None) -> bool:
    """Whether there is enough for a curve: two finite values."""
    return series is not None and len(finite(series).values) > 1


def stem(name: str) -> str:
    """A metric without its band or part: "bias_db" of "bias_db/VH"."""
    return name.partition("/")[0]


def shown_name(name: str) -> str:
    """A name of a file in a figure, where a long one would leave no room for the curve."""
    name = escape_unprintable(name)
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


TICKS = (1.0, 2.0, 5.0)
"""Of a logarithmic axis, in every decade."""

MANY = 60
"""Values of a loss from which on it is smoothed too."""

SECONDS = {
    "seconds/compute": ("computing", "tab:blue"),
    "seconds/data": ("waiting for data", "tab:orange"),
    "seconds/save": ("saving", "tab:green"),
    "seconds/look": ("looking, drawing", "tab:purple"),
}
"""What a step's time goes into: the lowest in the stack first."""

HELD_OUT = ("validation/loss", "validation", "tab:orange")
"""The same loss of other records, beside the loss: metric, label, colour."""


class Measure(NamedTuple):
    """How a metric is shown.

    Attributes:
      label: with its unit.
      factor: from what is logged to that unit.
      guide: a value worth comparing with, in that unit.
    """

    label: str
    factor: float = 1.0
    guide: float | None = None


MEASURES = {
    "loss": Measure("loss"),
    "gradient_norm": Measure("gradient norm"),
    "learning_rate": Measure("learning rate"),
    "explained_variance": Measure("explained variance (%)", 100.0, 0.0),
    "loss_dark_share": Measure("loss in the darkest tenth (%)", 100.0),
    "bias_db": Measure("bias (dB)", 1.0, 0.0),
}
"""Of the metrics whose meaning is known; others are shown as they are."""


def activity(name: str) -> str:
    """What the seconds of a metric were spent with."""
    return SECONDS[name][0] if name in SECONDS else name.partition("/")[2] or name


@rc_context(STYLE)
def draw_training(metrics: ShownMetrics, resumed: Sequence[float]) -> bytes | None:
    """Loss, with gradient norm and learning rate beside it; None where there are no curves.

    Args:
      metrics: by name.
      resumed: steps after which the run went on.
    """
    beside = [name for name in ("gradient_norm", "learning_rate") if drawable(metrics.get(name))]
    first = ["loss"] if drawable(metrics.get("loss")) else []
    if not first + beside:
        return None
    layout: list[Any] = [[*first, name] for name in beside] or [first]
    figure = Figure(figsize=(WIDTH, 2.1), layout="constrained", dpi=DPI)
    axes = figure.subplot_mosaic(layout, width_ratios=[2.2, 1.0][-len(layout[0]) :])
    for name, axis in axes.items():
        narrow = name != "loss"
        _over_steps(axis, name, metrics[name])
        if name == "loss":
            _held_out(axis, metrics)
        log_scale(axis, "x", finite(metrics[name]).steps, (1.0,) if narrow else TICKS)
        axis.set_title(MEASURES[name].label, loc="left", pad=3)
        finish(axis, resumed)
    if len(beside) > 1:  # one above the other: one axis of steps is enough
        axes[beside[0]].set_xlabel("")
        axes[beside[0]].tick_params(labelbottom=False)
    return figure_to_png(figure)


def _held_out(axis: Axes, metrics: ShownMetrics) -> None:
    """The loss of the validation split in the axis of the loss, where it was logged."""
    name, label, colour = HELD_OUT
    if not drawable(metrics.get(name)):
        return
    if axis.get_legend() is None:
        axis.lines[0].set_label("training")
    draw_line(axis, metrics[name], colour, label)
    mark_gaps(axis, metrics[name])
    axis.legend()


def _over_steps(axis: Axes, name: str, series: Series) -> None:
    """The curve of loss, gradient norm or learning rate."""
    if name == "loss" and len(series.steps) >= MANY:
        axis.plot(*series, color=COLOURS[0], alpha=0.6, linewidth=0.8, label="as logged")
        label = "median of neighbours"
        axis.plot(*smoothed(series), color="#10304f", linewidth=0.9, label=label)
        axis.legend()
    else:
        draw_line(axis, series, COLOURS[0])
    mark_gaps(axis, series)
    if name == "gradient_norm" and np.nanmin(series.values) > 0:
        log_scale(axis, "y", finite(series).values, TICKS)
    if name == "learning_rate":  # no power of ten above the axis
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


@rc_context(STYLE)
def draw_throughput(metrics: ShownMetrics, resumed: Sequence[float]) -> bytes | None:
    """Images per second, and where the time of a step goes; None where there are no curves.

    Args:
      metrics: by name.
      resumed: steps after which the run went on.
    """
    rate = metrics.get("images_per_second")
    parts = draw_step_parts(metrics)
    columns = drawable(rate) + bool(parts)
    if not columns:
        return None
    figure = Figure(figsize=(WIDTH, 1.7), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    if rate is not None and drawable(rate):
        axis = axes.pop(0)
        draw_line(axis, rate, COLOURS[0])
        axis.set_ylim(0, 1.1 * np.nanmax(rate.values))
        axis.set_ylabel("images/s")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        finish(axis, resumed)
    if parts:
        _stack(axes[0], parts)
        finish(axes[0], resumed)
    return figure_to_png(figure)


@rc_context(STYLE)
def draw_small_multiples(
    metrics: ShownMetrics, names: Sequence[str], resumed: Sequence[float], columns: int = 3
) -> bytes | None:
    """A small panel for every name, with a line for every band or part of it.

    Args:
      metrics: by name.
      names: without band; those without a curve are left out.
      resumed: steps after which the run went on.
      columns: panels beside each other.
    """
    panels = {name: _parts(metrics, name) for name in names}
    panels = {name: lines for name, lines in panels.items() if lines}
    if not panels:
        return None
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 1.5 * rows), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        measure = MEASURES.get(name, Measure(shown_name(name)))
        many = len(lines) > len(COLOURS)
        if measure.guide is not None:
            axis.axhline(measure.guide, color="0.4", linewidth=0.8, linestyle=":")
        for number, (part, series) in enumerate(lines.items()):
            shown = Series(series.steps, measure.factor * series.values)
            colour = COLOURS[0] if many else COLOURS[number]
            draw_line(axis, shown, colour, shown_name(part) or None)
            mark_gaps(axis, series)
        count = f": {len(lines)} lines" if many else ""
        axis.set_title(f"{measure.label}{count}", loc="left")
        if any(lines) and not many:
            axis.legend(handlelength=1.2, borderaxespad=0.2)
        finish(axis, resumed)
    return figure_to_png(figure)


def draw_step_parts(metrics: ShownMetrics) -> dict[str, Series]:
    """The series of seconds, the known first, in their order; none where there is no curve."""
    there = [name for name in metrics if stem(name) == "seconds" and len(finite(metrics[name])[0])]
    if not any(drawable(metrics[name]) for name in there):
        return {}
    return {name: metrics[name] for name in dict.fromkeys([*SECONDS, *there]) if name in there}


def durations(parts: Mapping[str, Series]) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the intervals that were logged, and (part, interval) seconds per step in them.

    The value of a step is the mean since the line before it.

    Args:
      parts: series of seconds per step, at least one.
    """
    steps = np.unique(np.concatenate([series.steps for series in parts.values()]))
    values = np.zeros((len(parts), len(steps)))
    for row, series in zip(values, parts.values(), strict=True):
        row[np.searchsorted(steps, series.steps)] = np.nan_to_num(series.values)
    usual = np.median(np.diff(steps)) if len(steps) > 1 else steps[0]
    return np.concatenate([[max(0.0, steps[0] - usual)], steps]), values


def smoothed(series: Series) -> Series:
    """The median of each value's neighbours, nearer ones at the beginning, where steps are few."""
    steps, values = finite(series)
    reach = [min(number // 10, 50) for number in range(len(values))]
    medians = [
        np.median(values[number - one : number + one + 1]) for number, one in enumerate(reach)
    ]
    return Series(steps, np.array(medians))


def _parts(metrics: ShownMetrics, name: str) -> dict[str, Series]:
    """The curves of a metric by band or part; "" for the metric itself."""
    found = {one.partition("/")[2]: series for one, series in metrics.items() if stem(one) == name}
    return {part: series for part, series in found.items() if drawable(series)}


def _stack(axis: Axes, parts: Mapping[str, Series]) -> None:
    """Areas on top of each other; one slow interval does not set the scale."""
    edges, values = durations(parts)
    total = values.sum(0)
    usual = 1.4 * float(np.percentile(total, 95))
    unit, factor = ("s", 1.0) if usual >= 1 else ("ms", 1000.0)
    below = np.zeros(len(total))
    spare = iter(("tab:red", "tab:brown", "tab:olive", "tab:pink", "tab:cyan"))
    for name, row in zip(parts, values, strict=True):
        colour = SECONDS[name][1] if name in SECONDS else next(spare, "0.7")
        above = below + row
        axis.stairs(
            factor * above,
            edges,
            baseline=factor * below,
            fill=True,
            color=colour,
            label=shown_name(activity(name)),
            linewidth=0,
        )
        below = above
    if usual > 0:
        axis.set_ylim(0, factor * min(usual, 1.1 * total.max()))
    axis.set_ylabel(f"{unit} per step")
    axis.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        fontsize=6.5,
        handlelength=1.0,
        columnspacing=1.0,
        borderaxespad=0.1,
    )
