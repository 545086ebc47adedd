"""Figures of classification: bars of the classes, and predictions where a class was missed."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png
from sar_mixmae_jax.utils.tables import UNDEFINED

DPI = 110
PANELS = {"average_precision": "average precision", "f1": "F1 at threshold 0.5"}
COLOURS = {"average_precision": "tab:blue", "f1": "tab:orange", "prevalence": "0.6"}
MAX_ANNOTATED = 50
"""Maximum number of classes for which the cells of the matrix show numbers."""

MIN_MISSED = 10
"""Minimum number of records of a row of the matrix; shares of fewer would be accidental."""


def _wrap_names(classes: Sequence[str], width: int = 44) -> list[str]:
    """Wrap names to a width in characters; "$" is escaped, since it starts math mode."""
    return ["\n".join(textwrap.wrap(name.replace("$", r"\$"), width)) for name in classes]


def bars(metrics: Mapping[str, Any], intervals: Mapping[str, Any], title: str) -> bytes:
    """Draw average precision and F1 with intervals, and prevalence, of each class.

    Args:
      metrics: of `metrics.multilabel_metrics`.
      intervals: `values` of `bootstrap.intervals`.
      title: title of the figure.

    Returns:
      Bytes of a PNG.
    """
    per_class, macro = metrics["per_class"], metrics["macro"]
    classes = sorted(per_class, key=lambda name: per_class[name]["prevalence"])
    figure = Figure(figsize=(13, 0.36 * len(classes) + 2.0), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(3, 3, 2))
    for axis, (name, label) in zip(axes, PANELS.items(), strict=False):
        values = [per_class[label][name] for label in classes]
        ranges = [intervals["per_class"][label][name] for label in classes]
        draw_value_bars(axis, values, ranges, COLOURS[name])
        mean, over = macro[name], macro["n_classes"][name]
        if mean is not None:
            axis.axvline(mean, color="0.2", linestyle="--", linewidth=1)
        axis.set_title(f"{label}\n(dashed: mean of {over} classes)", fontsize=10)
    prevalence = [100 * per_class[name]["prevalence"] for name in classes]
    axes[2].barh(range(len(classes)), prevalence, color=COLOURS["prevalence"], height=0.7)
    for row, share in enumerate(prevalence):
        text = "no positives" if share == 0 else f"{share:.3g} %"
        axes[2].annotate(
            text, (share, row), (3, 0), textcoords="offset points", va="center", fontsize=8
        )
    axes[2].margins(x=0.22)
    axes[2].set_xlim(left=0)
    axes[2].set_title("prevalence\n(share of records, %)", fontsize=10)
    axes[2].grid(axis="x", alpha=0.3)
    axes[2].set_axisbelow(True)
    axes[0].set_yticks(range(len(classes)), _wrap_names(classes), fontsize=8)
    axes[0].set_ylim(-0.6, len(classes) - 0.4)
    add_title(figure, title)
    return figure_to_png(figure)


def draw_value_bars(
    axis: Axes, values: Sequence[float | None], intervals: Sequence[dict[str, Any]], colour: str
) -> None:
    """Draw horizontal bars between 0 and 1 with intervals; "undefined" where there is no value.

    Args:
      axis: to draw on; bar i is at height i.
      values: values of the bars; None where undefined.
      intervals: of `bootstrap.interval`, one for each bar.
      colour: colour of the bars.
    """
    for row, (value, interval) in enumerate(zip(values, intervals, strict=True)):
        if value is None:
            axis.text(0.02, row, UNDEFINED, va="center", fontsize=8, color="0.3", style="italic")
            continue
        axis.barh(row, value, color=colour, height=0.7, alpha=0.75)
        text, place = f"{value:.2f}", value
        if interval["low"] is None:
            text += " (no interval)"
        else:
            low, high = interval["low"], interval["high"]
            axis.plot((low, high), (row, row), color="0.1", linewidth=1.6, solid_capstyle="butt")
            place = max(value, high)
        axis.annotate(
            text,
            (place, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.85},
        )
    without_interval = any(
        interval["low"] is None and (value or 0) > 0.7
        for value, interval in zip(values, intervals, strict=True)
    )
    axis.set_xlim(0, 1.55 if without_interval else 1.24)
    axis.set_xticks(np.arange(0, 1.01, 0.2))
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def confusion(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str
) -> bytes:
    """Draw which classes are predicted wrongly for records in which another class is missed.

    Multi-label predictions have no confusion matrix of counts: a record with two labels is in no
    single cell. Here the row is a true class that was missed, the column a class that was predicted
    for the same record and that it does not have.

    Args:
      probabilities: (n, classes) float.
      labels: (n, classes), 1 where a record has the class.
      classes: names of the classes.
      title: title of the figure.

    Returns:
      Bytes of a PNG.
    """
    predicted, true = probabilities > THRESHOLD, labels.astype(bool)
    missed = (true & ~predicted).astype(np.float32)
    alarm = (predicted & ~true).astype(np.float32)
    counts = missed.sum(0)
    with np.errstate(invalid="ignore"):
        shares = 100.0 * (missed.T @ alarm) / counts[:, None]
    np.fill_diagonal(shares, np.nan)  # a missed class is no false alarm
    shares[counts < MIN_MISSED] = np.nan
    side = max(4.0, 0.42 * len(classes))
    figure = Figure(figsize=(side + 7.0, side + 2.0), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    highest = 10 * np.ceil(np.max(shares, initial=10, where=np.isfinite(shares)) / 10)
    colours = colormaps["viridis"].with_extremes(bad="0.9")
    image = axis.imshow(shares, cmap=colours, vmin=0, vmax=highest, aspect="equal")
    rows = [
        f"{name}  {number}\n(missed {missing:,.0f} of {total:,.0f})"
        for number, (name, missing, total) in enumerate(
            zip(_wrap_names(classes), counts, true.sum(0), strict=True), 1
        )
    ]
    axis.set_yticks(range(len(classes)), rows, fontsize=7)
    axis.set_xticks(range(len(classes)), [str(number + 1) for number in range(len(classes))])
    axis.set_xlabel("class predicted although the record does not have it (numbers as on the left)")
    axis.set_ylabel("true class that was missed")
    axis.set_title(title, parse_math=False)
    if len(classes) <= MAX_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                shade = "black" if share > 0.6 * highest else "white"
                axis.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=shade
                )
    label = "share of the records in which the row's class was missed (%)\n"
    label += f"grey: itself, or missed in fewer than {MIN_MISSED}"
    figure.colorbar(image, ax=axis, label=label, aspect=30, ticks=MaxNLocator(5, integer=True))
    return figure_to_png(figure)
