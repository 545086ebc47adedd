"""Figures of many labels: bars of every class, and what is said in place of a missed class."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.tables import UNDEFINED
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png

DPI = 110
PANELS = {"average_precision": "average precision", "f1": "F1 at threshold 0.5"}
COLOURS = {"average_precision": "tab:blue", "f1": "tab:orange", "prevalence": "0.6"}
MOST_ANNOTATED = 50
"""Classes up to which every cell of the matrix has its number."""

FEWEST_MISSED = 10
"""Records below which a row of the matrix stays empty: its shares would be accidents."""


def _names(classes: Sequence[str], width: int = 44) -> list[str]:
    """Names in lines, a dollar sign being no mathematics."""
    return ["\n".join(textwrap.wrap(name.replace("$", r"\$"), width)) for name in classes]


def bars(metrics: Mapping[str, Any], intervals: Mapping[str, Any], title: str) -> bytes:
    """Average precision and F1 with intervals, and prevalence, of every class.

    Args:
      metrics: of `metrics.classification`.
      intervals: `values` of `bootstrap.intervals`.
      title: of the figure.
    """
    classes = sorted(
        metrics["per_class"], key=lambda name: metrics["per_class"][name]["prevalence"]
    )
    figure = Figure(figsize=(13, 0.36 * len(classes) + 2.0), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, 3, sharey=True, width_ratios=(3, 3, 2))
    for axis, (name, label) in zip(axes, PANELS.items(), strict=False):
        values = [metrics["per_class"][one][name] for one in classes]
        ranges = [intervals["per_class"][one][name] for one in classes]
        value_bars(axis, values, ranges, COLOURS[name])
        mean, over = metrics["macro"][name], metrics["macro"]["n_classes"][name]
        if mean is not None:
            axis.axvline(mean, color="0.2", linestyle="--", linewidth=1)
        axis.set_title(f"{label}\n(dashed: mean of {over} classes)", fontsize=10)
    prevalence = [100 * metrics["per_class"][one]["prevalence"] for one in classes]
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
    axes[0].set_yticks(range(len(classes)), _names(classes), fontsize=8)
    axes[0].set_ylim(-0.6, len(classes) - 0.4)
    add_title(figure, title)
    return figure_to_png(figure)


def value_bars(
    axis: Axes, values: Sequence[float | None], intervals: Sequence[dict[str, Any]], colour: str
) -> None:
    """Horizontal bars between 0 and 1 with intervals; a word where a value is undefined.

    Args:
      axis: to draw on; bar i is at height i.
      values: of the bars.
      intervals: of `bootstrap.interval`.
      colour: of the bars.
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
    bare = any(
        one["low"] is None and (value or 0) > 0.7
        for value, one in zip(values, intervals, strict=True)
    )
    axis.set_xlim(0, 1.55 if bare else 1.24)
    axis.set_xticks(np.arange(0, 1.01, 0.2))
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def confusion(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], title: str
) -> bytes:
    """What was said, wrongly, of records in which a class was missed.

    Several labels at once have no confusion matrix of counts: a record with two labels is in no
    single cell. What it is read for remains: the row is a true class that was missed, the column
    a class that the same record does not have and was said to have.

    Args:
      probabilities: (n, classes).
      labels: (n, classes).
      classes: names.
      title: of the figure.
    """
    said, true = probabilities > THRESHOLD, labels.astype(bool)
    missed, alarm = (true & ~said).astype(np.float32), (said & ~true).astype(np.float32)
    counts = missed.sum(0)
    with np.errstate(invalid="ignore"):
        shares = 100.0 * (missed.T @ alarm) / counts[:, None]
    np.fill_diagonal(shares, np.nan)  # a class that is missed is no false alarm
    shares[counts < FEWEST_MISSED] = np.nan
    side = max(4.0, 0.42 * len(classes))
    figure = Figure(figsize=(side + 7.0, side + 2.0), layout="constrained", dpi=DPI)
    axis = figure.subplots()
    highest = 10 * np.ceil(np.max(shares, initial=10, where=np.isfinite(shares)) / 10)
    colours = colormaps["viridis"].with_extremes(bad="0.9")
    image = axis.imshow(shares, cmap=colours, vmin=0, vmax=highest, aspect="equal")
    rows = [
        f"{name}  {number}\n(missed {missing:,.0f} of {there:,.0f})"
        for number, (name, missing, there) in enumerate(
            zip(_names(classes), counts, true.sum(0), strict=True), 1
        )
    ]
    axis.set_yticks(range(len(classes)), rows, fontsize=7)
    axis.set_xticks(range(len(classes)), [str(number + 1) for number in range(len(classes))])
    axis.set_xlabel("class said although the record does not have it (numbers as on the left)")
    axis.set_ylabel("true class that was missed")
    axis.set_title(title, parse_math=False)
    if len(classes) <= MOST_ANNOTATED:
        for (row, column), share in np.ndenumerate(shares):
            if np.isfinite(share):
                shade = "black" if share > 0.6 * highest else "white"
                axis.text(
                    column, row, f"{share:.0f}", ha="center", va="center", fontsize=7, color=shade
                )
    label = "share of the records in which the row's class was missed (%)\n"
    label += f"grey: itself, or missed in fewer than {FEWEST_MISSED}"
    figure.colorbar(image, ax=axis, label=label, aspect=30, ticks=MaxNLocator(5, integer=True))
    return figure_to_png(figure)
