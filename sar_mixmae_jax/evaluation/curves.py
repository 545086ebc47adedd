"""Precision-recall curves: one small picture for each question, as the bytes of a PNG."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sklearn.metrics import precision_recall_curve

from sar_mixmae_jax.evaluation.tables import UNDEFINED, number
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png

DPI = 110
COLUMNS = 5
MOST_POINTS = 1000
"""Of a curve: more cannot be told apart."""

CURVE, AT_THRESHOLD, CHANCE = "tab:blue", "tab:orange", "0.5"


class Curve(NamedTuple):
    """What is drawn in one of the pictures.

    Attributes:
      name: of the class or the evaluation.
      probabilities: (n,).
      labels: (n,).
      weights: (n,).
      metrics: of `metrics.binary`.
    """

    name: str
    probabilities: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    metrics: dict


def precision_recall(curves: Sequence[Curve], title: str) -> bytes:
    """Draws the curves in the order in which they are given.

    Args:
      curves: at least one.
      title: of the figure.
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
        _draw(axis, curve, width=26 if size < 3 else 44)
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
        Line2D([], [], color=AT_THRESHOLD, marker="o", linestyle="", label="at threshold 0.5"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure_to_png(figure)


def _draw(axis: Axes, curve: Curve, width: int) -> None:
    found = curve.metrics
    name = "\n".join(textwrap.wrap(curve.name, width, max_lines=2, placeholder=" …"))
    precision = found["average_precision"]
    axis.set_title(f"{name}\nAP {number(precision)}", fontsize=9, parse_math=False)
    axis.set_xlim(-0.02, 1.02)
    axis.set_ylim(-0.02, 1.04)
    axis.set_xticks((0, 0.5, 1))
    axis.set_yticks((0, 0.5, 1))
    axis.grid(alpha=0.3)
    axis.set_box_aspect(1)
    if precision is None:
        missing = "no positives" if not found["prevalence"] else "no negatives"
        axis.text(0.5, 0.5, f"{UNDEFINED}:\n{missing}", ha="center", va="center", color="0.3")
        return
    y, x, _ = precision_recall_curve(
        curve.labels, curve.probabilities, sample_weight=curve.weights, drop_intermediate=True
    )
    y[-1] = y[-2]  # scikit-learn ends at precision 1, which no threshold gives
    shown = np.unique(np.linspace(0, len(x) - 1, min(len(x), MOST_POINTS)).round().astype(int))
    axis.axhline(found["prevalence"], color=CHANCE, linestyle="--", linewidth=1)
    axis.plot(x[shown], y[shown], color=CURVE, drawstyle="steps-post", linewidth=1.3)
    if found["precision"] is not None:
        axis.plot(found["recall"], found["precision"], "o", color=AT_THRESHOLD, markersize=5)
