"""Precision-recall curves: one panel for each class or view."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve

from sar_mixmae_jax.utils.plotting import add_title, figure_to_png
from sar_mixmae_jax.utils.tables import UNDEFINED, format_metric

DPI = 110
COLUMNS = 5
MAX_POINTS = 1000
"""Points of a curve; more cannot be distinguished."""

CURVE, AT_THRESHOLD, CHANCE = "tab:blue", "tab:orange", "0.5"


class Curve(NamedTuple):
    """Content of one panel.

    Attributes:
      name: name of the class or view.
      probabilities: (n,) of the positive class.
      labels: (n,) 1 for a positive.
      weights: (n,) of the rows.
      metrics: of `metrics.binary_metrics`.
    """

    name: str
    probabilities: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    metrics: Mapping[str, Any]


def precision_recall(curves: Sequence[Curve], title: str) -> bytes:
    """Draw curves in their order.

    Args:
      curves: at least one.
      title: title of the figure.

    Returns:
      Bytes of a PNG.
    """
    columns = min(COLUMNS, len(curves))
    rows = -(-len(curves) // columns)
    size = 2.5 if len(curves) > 3 else 4.0
    figure = Figure(
        figsize=(max(size * columns, 8.0), (size + 0.35) * rows + 1.1),
        layout="constrained",
        dpi=DPI,
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis, curve in zip(axes.flat, curves, strict=False):
        _draw_panel(axis, curve, width=26 if size < 3 else 44)
    for axis in axes.flat[len(curves) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("precision")
    for column in range(columns):
        lowest = (len(curves) - 1 - column) // columns
        axes[lowest, column].set_xlabel("recall")
    add_title(figure, title)
    handles = [
        Line2D([], [], color=CURVE, label="precision at each recall"),
        Line2D([], [], color=CHANCE, linestyle="--", label="prevalence: precision of guessing"),
    ]
    if any(_has_threshold(curve) for curve in curves):
        label = "at threshold 0.5"
        handles.append(Line2D([], [], color=AT_THRESHOLD, marker="o", linestyle="", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure_to_png(figure)


def _has_threshold(curve: Curve) -> bool:
    """Return whether a curve has a point at the threshold: something is predicted positive."""
    return None not in (curve.metrics["average_precision"], curve.metrics["precision"])


def _draw_panel(axis: Axes, curve: Curve, width: int) -> None:
    """Draw one curve; `width` is the number of characters of a line of its title."""
    metrics = curve.metrics
    name = "\n".join(textwrap.wrap(curve.name, width, max_lines=2, placeholder=" …"))
    precision = metrics["average_precision"]
    axis.set_title(f"{name}\nAP {format_metric(precision)}", fontsize=9, parse_math=False)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.04)
    axis.set_xticks((0, 0.5, 1))
    axis.set_yticks((0, 0.5, 1))
    axis.grid(alpha=0.3)
    axis.set_box_aspect(1)
    if precision is None:
        missing = "no positives" if not metrics["prevalence"] else "no negatives"
        axis.text(0.5, 0.5, f"{UNDEFINED}:\n{missing}", ha="center", va="center", color="0.3")
        return
    y, x, _ = precision_recall_curve(
        curve.labels, curve.probabilities, sample_weight=curve.weights, drop_intermediate=True
    )
    y[-1] = y[-2]  # scikit-learn ends at precision 1, which no threshold gives
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), MAX_POINTS)).round().astype(int))
    axis.axhline(metrics["prevalence"], color=CHANCE, linestyle="--", linewidth=1)
    axis.plot(x[shown], y[shown], color=CURVE, drawstyle="steps-post", linewidth=1.3)
    if _has_threshold(curve):
        axis.plot(metrics["recall"], metrics["precision"], "o", color=AT_THRESHOLD, markersize=5)
