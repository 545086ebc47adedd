"""Figures of the page, as PNG bytes: training, throughput, diagnostics, validation scores."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from sar_mixmae_jax.run_report.axes import (
    COLOURS,
    DPI,
    STYLE,
    TICKS,
    WIDTH,
    SeriesByName,
    draw_line,
    finish_step_axis,
    mark_nonfinite,
    set_log_scale,
    short_name,
)
from sar_mixmae_jax.run_report.formatting import format_metric
from sar_mixmae_jax.run_report.history import BestCheckpoint, Series, finite, has_curve, stem
from sar_mixmae_jax.utils.plotting import figure_to_png

MIN_SMOOTHED = 60
"""Values of a loss from which on its running median is drawn too."""

PANEL_COLUMNS, PANEL_HEIGHT = 3, 1.5
"""Grid of small panels; height in inches."""

SECONDS = {
    "seconds/compute": ("computing", "tab:blue"),
    "seconds/data": ("waiting for data", "tab:orange"),
    "seconds/save": ("saving", "tab:green"),
    "seconds/evaluate": ("evaluating", "tab:purple"),
}
"""Parts of the time of a step, from the bottom of the stack: label and colour by metric."""

VALIDATION_LOSS, VALIDATION_LOSS_COLOUR = "validation/loss", "tab:orange"
"""Metric that is drawn in the panel of the training loss, and its colour."""

MEANS = {"": COLOURS[0], "macro": COLOURS[0], "micro": "tab:orange"}
"""Colours of the curves of a score by the kind of its mean over the classes."""


class Measure(NamedTuple):
    """Presentation of a metric.

    Attributes:
      label: with its unit.
      factor: from the logged value to that unit.
      guide: reference value in that unit, drawn as a dotted line.
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
"""By metric; others are drawn as logged."""


# ---- training


@rc_context(STYLE)
def draw_training(metrics: SeriesByName, resumed: Sequence[float]) -> bytes | None:
    """Draw the loss, with gradient norm and learning rate beside it.

    Args:
      metrics: by name.
      resumed: steps after which the run was resumed.

    Returns:
      A PNG; None if no metric has a curve.
    """
    beside = [name for name in ("gradient_norm", "learning_rate") if has_curve(metrics.get(name))]
    first = ["loss"] if has_curve(metrics.get("loss")) else []
    if not first + beside:
        return None
    layout: list[Any] = [[*first, name] for name in beside] or [first]
    figure = Figure(figsize=(WIDTH, 2.1), layout="constrained", dpi=DPI)
    axes = figure.subplot_mosaic(layout, width_ratios=[2.2, 1.0][-len(layout[0]) :])
    for name, axis in axes.items():
        _draw_training_metric(axis, name, metrics[name])
        if name == "loss":
            _draw_validation_loss(axis, metrics)
        ticks = TICKS if name == "loss" else (1.0,)  # the other panels are narrow
        set_log_scale(axis, "x", finite(metrics[name]).steps, ticks)
        axis.set_title(MEASURES[name].label, loc="left", pad=3)
        finish_step_axis(axis, resumed)
    if len(beside) > 1:  # one above the other: they share the lower axis of steps
        axes[beside[0]].set_xlabel("")
        axes[beside[0]].tick_params(labelbottom=False)
    return figure_to_png(figure)


def _draw_training_metric(axis: Axes, name: str, series: Series) -> None:
    """Draw the curve of loss, gradient norm or learning rate."""
    if name == "loss" and len(series.steps) >= MIN_SMOOTHED:
        axis.plot(*series, color=COLOURS[0], alpha=0.6, linewidth=0.8, label="as logged")
        median = running_median(series)
        axis.plot(*median, color="#10304f", linewidth=0.9, label="running median")
        axis.legend()
    else:
        draw_line(axis, series, COLOURS[0])
    mark_nonfinite(axis, series)
    if name == "gradient_norm" and np.nanmin(series.values) > 0:
        set_log_scale(axis, "y", finite(series).values, TICKS)
    if name == "learning_rate":  # avoids an offset such as "1e-4" above the axis
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))


def _draw_validation_loss(axis: Axes, metrics: SeriesByName) -> None:
    """Draw the loss of the validation split into the panel of the training loss."""
    series = metrics.get(VALIDATION_LOSS)
    if series is None or not has_curve(series):
        return
    if axis.get_legend() is None:
        axis.lines[0].set_label("training")
    draw_line(axis, series, VALIDATION_LOSS_COLOUR, "validation")
    mark_nonfinite(axis, series)
    axis.legend()


def running_median(series: Series) -> Series:
    """Return the running median; its window grows from 1 to 101 values."""
    steps, values = finite(series)
    reaches = [min(index // 10, 50) for index in range(len(values))]
    medians = [
        np.median(values[index - reach : index + reach + 1]) for index, reach in enumerate(reaches)
    ]
    return Series(steps, np.array(medians))


# ---- throughput


@rc_context(STYLE)
def draw_throughput(metrics: SeriesByName, resumed: Sequence[float]) -> bytes | None:
    """Draw images per second, and the time of a step by part.

    Args:
      metrics: by name.
      resumed: steps after which the run was resumed.

    Returns:
      A PNG; None if no metric has a curve.
    """
    rate = metrics.get("images_per_second")
    parts = step_time_parts(metrics)
    columns = has_curve(rate) + bool(parts)
    if not columns:
        return None
    figure = Figure(figsize=(WIDTH, 1.7), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(1, columns, squeeze=False)[0])
    if rate is not None and has_curve(rate):
        axis = axes.pop(0)
        draw_line(axis, rate, COLOURS[0])
        axis.set_ylim(0, 1.1 * np.nanmax(rate.values))
        axis.set_ylabel("images/s")
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
        finish_step_axis(axis, resumed)
    if parts:
        _draw_stack(axes[0], parts)
        finish_step_axis(axes[0], resumed)
    return figure_to_png(figure)


def part_label(name: str) -> str:
    """Return the label of a metric of seconds."""
    return SECONDS[name][0] if name in SECONDS else name.partition("/")[2] or name


def step_time_parts(metrics: SeriesByName) -> dict[str, Series]:
    """Return the series of seconds, first those of `SECONDS`; {} if none has a curve."""
    names = [name for name in metrics if stem(name) == "seconds" and len(finite(metrics[name])[0])]
    if not any(has_curve(metrics[name]) for name in names):
        return {}
    return {name: metrics[name] for name in dict.fromkeys([*SECONDS, *names]) if name in names}


def step_times(parts: SeriesByName) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of the logged intervals, and the seconds per step in each.

    A logged value is the mean since the line before it, the first one since step 0.

    Args:
      parts: series of seconds per step, at least one.

    Returns:
      (intervals + 1,) steps and (part, interval) seconds.
    """
    steps = np.unique(np.concatenate([series.steps for series in parts.values()]))
    values = np.zeros((len(parts), len(steps)))
    for row, series in zip(values, parts.values(), strict=True):
        row[np.searchsorted(steps, series.steps)] = np.nan_to_num(series.values)
    return np.concatenate([[0.0], steps]), values


def _draw_stack(axis: Axes, parts: SeriesByName) -> None:
    """Draw the parts as stacked areas, scaled to the usual intervals and not to the slowest."""
    edges, values = step_times(parts)
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
            label=short_name(part_label(name)),
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


# ---- small panels


@rc_context(STYLE)
def draw_small_multiples(
    metrics: SeriesByName, names: Sequence[str], resumed: Sequence[float]
) -> bytes | None:
    """Draw a small panel for every metric, with a curve for every band or part.

    Args:
      metrics: by name.
      names: metrics without band; those without a curve are left out.
      resumed: steps after which the run was resumed.

    Returns:
      A PNG; None if no metric has a curve.
    """
    panels = {name: curves for name in names if (curves := _curves_of(metrics, name))}
    if not panels:
        return None
    figure, axes = _panel_grid(len(panels))
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        measure = MEASURES.get(name, Measure(short_name(name)))
        many = len(curves) > len(COLOURS)
        if measure.guide is not None:
            axis.axhline(measure.guide, color="0.4", linewidth=0.8, linestyle=":")
        for number, (part, series) in enumerate(curves.items()):
            scaled = Series(series.steps, measure.factor * series.values)
            colour = COLOURS[0] if many else COLOURS[number]
            draw_line(axis, scaled, colour, short_name(part) or None)
            mark_nonfinite(axis, series)
        count = f": {len(curves)} lines" if many else ""
        axis.set_title(f"{measure.label}{count}", loc="left")
        if any(curves) and not many:
            axis.legend(handlelength=1.2, borderaxespad=0.2)
        finish_step_axis(axis, resumed)
    return figure_to_png(figure)


@rc_context(STYLE)
def draw_scores(
    panels: Mapping[str, SeriesByName],
    resumed: Sequence[float],
    best: BestCheckpoint | None,
    best_panel: tuple[str, str],
) -> bytes | None:
    """Draw a panel for every score, with a curve for every mean over the classes.

    Args:
      panels: by score and mean: {"f1": {"macro": …, "micro": …}}; without means {"f1": {"": …}}.
      resumed: steps after which the run was resumed.
      best: the best checkpoint, drawn as a circle.
      best_panel: score and mean of the metric that selects it.

    Returns:
      A PNG; None without panels.
    """
    if not panels:
        return None
    figure, axes = _panel_grid(len(panels))
    for axis, (score, curves) in zip(axes, panels.items(), strict=True):
        for mean, series in curves.items():
            draw_line(axis, series, MEANS[mean], mean or None)
            mark_nonfinite(axis, series)
            if best and best_panel == (score, mean):
                circle: dict[str, Any] = {"mfc": "none", "mec": "black", "ms": 7}
                axis.plot([best.step], [best.value], "o", clip_on=False, zorder=5, **circle)
        axis.set_title(short_name(format_metric(score)), loc="left")
        if any(curves):
            axis.legend(handlelength=1.2, borderaxespad=0.2)
        finish_step_axis(axis, resumed)
    return figure_to_png(figure)


def _panel_grid(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure with `count` small panels."""
    rows = -(-count // PANEL_COLUMNS)
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * rows), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(rows, PANEL_COLUMNS, squeeze=False).flat)
    for axis in axes[count:]:
        axis.remove()
    return figure, axes[:count]


def _curves_of(metrics: SeriesByName, name: str) -> dict[str, Series]:
    """Return the curves of a metric by band or part; "" for the metric itself."""
    return {
        logged.partition("/")[2]: series
        for logged, series in metrics.items()
        if stem(logged) == name and has_curve(series)
    }
