"""Tables and figures of a report about flood detection."""

import textwrap
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sar_mixmae_jax.evaluation import curves
from sar_mixmae_jax.evaluation.metrics import Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks import flood_metrics
from sar_mixmae_jax.tasks.classification_figures import COLOURS, DPI, draw_value_bars
from sar_mixmae_jax.tasks.flood_figure import draw_pairs
from sar_mixmae_jax.tasks.flood_metrics import NAMES, PAIR_WEIGHTS
from sar_mixmae_jax.tasks.flood_panels import (
    OUTCOMES,
    check_pair_pictures,
    choose_examples,
    scales,
)
from sar_mixmae_jax.tasks.task_report import Figures, Pictures
from sar_mixmae_jax.utils.plotting import add_title, figure_to_png
from sar_mixmae_jax.utils.tables import Lines, format_interval, format_metric, metrics_table

RATE_TITLES = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "AP",
    "balanced_accuracy": "balanced accuracy",
    "false_alarm_rate": "false alarms",
    "accuracy": "accuracy",
    "prevalence": "prevalence",
}
COUNT_TITLES = {"rows": "pairs", "images": "images", "sequences": "sequences"}
DEFINITIONS = {
    "onset": "Positives are the pairs whose image after is the first flooded one of its sequence, "
    "negatives all dry pairs; later flooded images, which stay labelled so by rule, are left out.",
    "all": "Every pair; by pair is how published numbers are counted.",
}
BREAKDOWNS = {
    "by_flooded_fraction": ("flooded fraction", ("recall",)),
    "by_hard_case": ("hard case", ("recall", "false_alarm_rate")),
}


def report_header(metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Return the first evaluation by image, beside what needs no model; by sequence and by pair.

    Args:
      metrics: of `Flood.metrics`.
      intervals: `values` of `bootstrap.intervals`.
    """
    first = metrics["headline"][0]
    values, ranges = metrics["evaluations"][first]["by_image"], intervals[first]["by_image"]
    shown = {name: format_interval(values[name], ranges[name]) for name in RATE_TITLES}
    prevalence = values["prevalence"]
    always = None if values["f1"] is None else 2 * prevalence / (1 + prevalence)
    return [
        f"**AP {shown['average_precision']}** (chance {format_metric(prevalence)}), "
        f"**F1 {shown['f1']}** (always flood {format_metric(always)}), "
        f"**balanced accuracy {shown['balanced_accuracy']}**, "
        f"**false-alarm rate {shown['false_alarm_rate']}** ({NAMES[first]}, by image)",
        "",
        *_paragraph(_constant_prediction(values["confusion"])),
        *_paragraph(flood_metrics.temporal_gap_sentence(metrics["gap_alone"])),
        DEFINITIONS[first],
        "",
        *_weighting_table(metrics, intervals, first),
        "",
        "The headline is by image: every image after counts once, shared by its pairs: one "
        "new image, one decision.",
    ]


def _paragraph(text: str) -> Lines:
    return [text, ""] if text else []


def _constant_prediction(cells: Mapping[str, float]) -> str:
    """Return a sentence if all predictions are equal; else ""."""
    predicted = {"flood": cells["fp"] + cells["tp"], "dry": cells["tn"] + cells["fn"]}
    classes = [name for name, weight in predicted.items() if weight > 0]
    if len(classes) != 1:
        return ""
    return (
        f"**Every pair is called {classes[0]}**: at this threshold the model distinguishes "
        "nothing; only AP measures whether its scores do."
    )


def _weighting_table(metrics: Metrics, intervals: Mapping[str, Any], evaluation: str) -> Lines:
    """Return a table with a row for each weighting; equal rows are merged."""
    order = sorted(PAIR_WEIGHTS, key=lambda weighting: weighting != "by_image")
    names = flood_metrics.deduplicate_views(
        metrics["evaluations"], intervals, [(evaluation, weighting) for weighting in order]
    )
    rows = [
        (
            text.removeprefix(f"{NAMES[evaluation]}, "),
            metrics["evaluations"][evaluation][weighting],
            intervals[evaluation][weighting],
        )
        for (_, weighting), text in names.items()
    ]
    return metrics_table(NAMES[evaluation], rows, RATE_TITLES, COUNT_TITLES)


def tables(metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Return the other evaluation, and breakdowns of all.

    Args:
      metrics: of `Flood.metrics`.
      intervals: `values` of `bootstrap.intervals`.
    """
    lines: Lines = []
    evaluations, first = metrics["evaluations"], metrics["headline"][0]
    for name, values in evaluations.items():
        if name != first and (values, intervals[name]) == (evaluations[first], intervals[first]):
            same = f"The same as {NAMES[first]}: there is no later flooded image to leave out."
            lines += ["## All pairs", "", same, ""]
            continue
        if name != first:
            lines += ["## All pairs", "", DEFINITIONS[name], ""]
            lines += [*_weighting_table(metrics, intervals, name), ""]
        for breakdown, (title, rates) in BREAKDOWNS.items():
            if breakdown not in values:
                continue
            rows = [
                (part, part_values, intervals[name][breakdown][part])
                for part, part_values in values[breakdown].items()
            ]
            titles = {rate: RATE_TITLES[rate] for rate in rates}
            lines += [f"### By {title}, {NAMES[name]}, by image", ""]
            lines += [*metrics_table(title, rows, titles, COUNT_TITLES), ""]
    return lines


def figures(
    predictions: Predictions,
    metrics: Metrics,
    intervals: Mapping[str, Any],
    title: str,
    pictures: Pictures | None,
) -> Figures:
    """Return the figures for which there is something to draw.

    Args:
      predictions: predictions of floods.
      metrics: of `Flood.metrics`.
      intervals: `values` of `bootstrap.intervals`; {} where there are none.
      title: title of the figures.
      pictures: row number -> `PairPicture`; None: no examples.

    Raises:
      InputError: a picture of `pictures` cannot be drawn.
    """
    evaluations, first = metrics["evaluations"], metrics["headline"][0]
    probabilities, labels = predictions.probabilities, predictions.labels
    names = flood_metrics.deduplicate_views(
        evaluations,
        intervals,
        [(name, weighting) for name in evaluations for weighting in MATRICES],
    )
    views = {view.path: view for view in flood_metrics.views(labels, predictions.columns)}
    shown = [
        curves.Curve(
            name,
            probabilities[views[path].rows],
            labels[views[path].rows],
            views[path].weights,
            evaluations[path[0]][path[1]],
        )
        for path, name in names.items()
    ]
    draw: Figures = {
        "precision_recall.png": lambda: curves.precision_recall(
            shown, f"Precision and recall: {title}"
        ),
        "confusion.png": lambda: confusion(evaluations, names, f"Truth and prediction: {title}"),
    }
    if any(name in evaluations[first] for name in BREAKDOWNS):
        draw["breakdowns.png"] = lambda: breakdowns(
            evaluations[first], intervals[first], f"{NAMES[first].capitalize()}, by image: {title}"
        )
    return draw | (_pair_figures(predictions, title, pictures) if pictures else {})


def pair_figure_name(outcome: str) -> str:
    """Return the file name of the figure of an outcome, a key of `OUTCOMES`."""
    return f"pairs_{outcome}.png"


def _pair_figures(predictions: Predictions, title: str, pictures: Pictures) -> Figures:
    """Return one figure for each outcome that occurs, all with the same scales."""
    examples = choose_examples(predictions)
    chosen = {outcome: examples[outcome] for outcome in OUTCOMES if examples[outcome]}
    by_row = {row: pictures(row) for rows in chosen.values() for row in rows}
    for row, picture in by_row.items():
        check_pair_pictures(picture, str(predictions.ids[row]))
    scale = scales(by_row.values())

    def drawing(outcome: str, rows: list[int]) -> Callable[[], bytes]:
        heading = f"{OUTCOMES[outcome].capitalize()}: {title}"
        return lambda: draw_pairs(predictions, rows, [by_row[row] for row in rows], scale, heading)

    return {pair_figure_name(outcome): drawing(outcome, rows) for outcome, rows in chosen.items()}


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
      title: title of the figure.

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
      intervals: intervals of that evaluation.
      title: title of the figure.

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
