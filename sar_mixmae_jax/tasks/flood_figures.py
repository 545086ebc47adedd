"""Figures of flood detection: confusion matrices, and what is found by size and by hard case."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sar_mixmae_jax.tasks.classification_figures import COLOURS, DPI, value_bars
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png

MATRICES = ("by_image", "by_pair")
"""Weightings of which there are curves and matrices."""


def confusion(
    evaluations: dict[str, Any], shown: Mapping[tuple[str, str], str], title: str
) -> bytes:
    """Confusion matrices of some views.

    Args:
      evaluations: of `flood_metrics.flood`.
      shown: name by evaluation and weighting, at least one.
      title: of the figure.
    """
    figure = Figure(figsize=(3.5 * len(shown) + 0.6, 4.2), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(shown), squeeze=False)
    for axis, ((name, weighting), text) in zip(axes[0], shown.items(), strict=True):
        _matrix(axis, evaluations[name][weighting]["confusion"])
        axis.set_title("\n".join(textwrap.wrap(text, 40)), fontsize=10)
    axes[0, 0].set_ylabel("truth")
    add_title(figure, title)
    return figure_to_png(figure)


def _matrix(axis: Axes, cells: dict[str, float]) -> None:
    """Two by two: the shade is the share of the row, the text the weight and the share."""
    matrix = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])
    total = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, total, out=np.full((2, 2), np.nan), where=total > 0)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), weight in np.ndenumerate(matrix):
        known = np.isfinite(share[row, column])
        shade = "white" if known and share[row, column] > 0.6 else "black"
        weight_text = f"{weight:,.0f}" if weight == round(weight) else f"{weight:,.1f}"
        text = f"{weight_text}\n{share[row, column]:.1%} of row" if known else "none"
        axis.text(column, row, text, ha="center", va="center", color=shade, fontsize=10)
    axis.set_xticks((0, 1), ("dry", "flood"))
    axis.set_yticks((0, 1), ("dry", "flood"))
    axis.set_xlabel("said")


def breakdowns(found: dict[str, Any], intervals: dict[str, Any], title: str) -> bytes:
    """Recall by flooded fraction; recall and false alarms by hard case; by image.

    Args:
      found: one of the evaluations of `flood_metrics.flood`, with at least one breakdown.
      intervals: those of it.
      title: of the figure.

    """
    panels = [
        (breakdown, metric, label)
        for breakdown, metric, label in (
            ("by_flooded_fraction", "recall", "recall by flooded fraction"),
            ("by_hard_case", "recall", "recall by hard case"),
            ("by_hard_case", "false_alarm_rate", "false alarms by hard case"),
        )
        if found.get(breakdown)
    ]
    most = max(len(found[breakdown]) for breakdown, *_ in panels)
    figure = Figure(figsize=(5.6 * len(panels), 0.62 * most + 1.8), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (breakdown, metric, label) in zip(axes[0], panels, strict=True):
        bins = list(found[breakdown])[::-1]
        values = [found[breakdown][name][metric] for name in bins]
        ranges = [intervals[breakdown][name][metric] for name in bins]
        value_bars(
            axis, values, ranges, COLOURS["f1" if metric != "recall" else "average_precision"]
        )
        names = [f"{name}\n({_images(found[breakdown][name], breakdown)})" for name in bins]
        axis.set_yticks(range(len(bins)), [name.replace("$", r"\$") for name in names], fontsize=8)
        axis.set_ylim(-0.6, len(bins) - 0.4)
        what = (
            "share of the floods found" if metric == "recall" else "share of the dry called flood"
        )
        axis.set_xlabel(what)
        axis.set_title(label, fontsize=10)
    add_title(figure, title)
    return figure_to_png(figure)


def _images(found: dict[str, Any], breakdown: str) -> str:
    """How many images a bin holds; of a hard case, how many of them flooded."""
    if breakdown == "by_flooded_fraction":
        return f"{found['images']:,} images"
    floods = found["confusion"]["tp"] + found["confusion"]["fn"]
    return f"{found['images']:,} images, {floods:,.0f} flooded"
