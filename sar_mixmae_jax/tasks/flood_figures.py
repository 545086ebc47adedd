"""Figures of flood detection: confusion matrices, and rates by flooded fraction and hard case."""

import textwrap
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sar_mixmae_jax.tasks.classification_figures import COLOURS, DPI, draw_value_bars
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png

MATRICES = ("by_image", "by_pair")
"""Weightings of which there are curves and matrices."""

CLASSES = ("dry", "flood")
PANELS = (
    ("by_flooded_fraction", "recall", "recall by flooded fraction"),
    ("by_hard_case", "recall", "recall by hard case"),
    ("by_hard_case", "false_alarm_rate", "false alarms by hard case"),
)
"""Breakdown, rate and title of the panels of `breakdowns`."""


def confusion(
    evaluations: Mapping[str, Any], shown: Mapping[tuple[str, str], str], title: str
) -> bytes:
    """Draw confusion matrices of some views.

    Args:
      evaluations: of `flood_metrics.compute_flood_metrics`.
      shown: (evaluation, weighting) -> title of the matrix, at least one.
      title: of the figure.

    Returns:
      Bytes of a PNG.
    """
    figure = Figure(figsize=(3.5 * len(shown) + 0.6, 4.2), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(shown), squeeze=False)
    for axis, ((name, weighting), text) in zip(axes[0], shown.items(), strict=True):
        _draw_matrix(axis, evaluations[name][weighting]["confusion"])
        axis.set_title("\n".join(textwrap.wrap(text, 40)), fontsize=10)
    axes[0, 0].set_ylabel("truth")
    add_title(figure, title)
    return figure_to_png(figure)


def _draw_matrix(axis: Axes, cells: Mapping[str, float]) -> None:
    """Draw a matrix whose shade is the share of the row, with weight and share as text."""
    matrix = np.array([[cells["tn"], cells["fp"]], [cells["fn"], cells["tp"]]])
    total = matrix.sum(1, keepdims=True)
    share = np.divide(matrix, total, out=np.full((2, 2), np.nan), where=total > 0)
    axis.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for (row, column), weight in np.ndenumerate(matrix):
        defined = np.isfinite(share[row, column])
        shade = "white" if defined and share[row, column] > 0.6 else "black"
        weight_text = f"{weight:,.0f}" if weight == round(weight) else f"{weight:,.1f}"
        text = f"{weight_text}\n{share[row, column]:.1%} of row" if defined else "none"
        axis.text(column, row, text, ha="center", va="center", color=shade, fontsize=10)
    axis.set_xticks((0, 1), CLASSES)
    axis.set_yticks((0, 1), CLASSES)
    axis.set_xlabel("prediction")


def breakdowns(evaluation: Mapping[str, Any], intervals: Mapping[str, Any], title: str) -> bytes:
    """Draw recall by flooded fraction, and recall and false alarms by hard case, by image.

    Args:
      evaluation: one evaluation of `flood_metrics.compute_flood_metrics`, with at least one
        breakdown.
      intervals: of that evaluation.
      title: of the figure.

    Returns:
      Bytes of a PNG.
    """
    panels = [panel for panel in PANELS if evaluation.get(panel[0])]
    most = max(len(evaluation[breakdown]) for breakdown, *_ in panels)
    figure = Figure(figsize=(5.6 * len(panels), 0.62 * most + 1.8), layout="constrained", dpi=DPI)
    axes = figure.subplots(1, len(panels), squeeze=False)
    for axis, (breakdown, rate, label) in zip(axes[0], panels, strict=True):
        parts = list(evaluation[breakdown])[::-1]
        values = [evaluation[breakdown][part][rate] for part in parts]
        ranges = [intervals[breakdown][part][rate] for part in parts]
        is_recall = rate == "recall"
        draw_value_bars(axis, values, ranges, COLOURS["average_precision" if is_recall else "f1"])
        names = [f"{part}\n({_counts(evaluation[breakdown][part], breakdown)})" for part in parts]
        axis.set_yticks(range(len(parts)), [name.replace("$", r"\$") for name in names], fontsize=8)
        axis.set_ylim(-0.6, len(parts) - 0.4)
        axis.set_xlabel(
            "share of the floods found" if is_recall else "share of the dry called flood"
        )
        axis.set_title(label, fontsize=10)
    add_title(figure, title)
    return figure_to_png(figure)


def _counts(values: Mapping[str, Any], breakdown: str) -> str:
    """Return the number of images of a part, and for hard cases how many are flooded."""
    if breakdown == "by_flooded_fraction":
        return f"{values['images']:,} images"
    floods = values["confusion"]["tp"] + values["confusion"]["fn"]
    return f"{values['images']:,} images, {floods:,.0f} flooded"
