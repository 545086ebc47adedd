"""Tables and pictures of the report about many labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.evaluation import class_figures, curves
from sar_mixmae_jax.evaluation.metrics import PUBLISHED, classification
from sar_mixmae_jax.evaluation.pairs import PairPicture
from sar_mixmae_jax.evaluation.scores import Metrics
from sar_mixmae_jax.evaluation.table import (
    Lines,
    escaped,
    metrics_table,
    missing_intervals,
    number,
    table,
    with_interval,
)

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

FIGURES = {
    "precision_recall.png": "Precision and recall of every class, the best first.",
    "classes.png": "Average precision and F1 with their intervals, the most frequent class on top.",
    "confusion.png": "What was said, wrongly, of records in which a class was missed.",
}
COLUMNS = {
    "average_precision": "AP",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "balanced accuracy",
}


def metrics(predictions: Predictions) -> Metrics:
    """`metrics.classification` of predictions."""
    return classification(predictions.probabilities, predictions.labels, predictions.classes)


def headline(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Macro and micro averages, and the published score."""
    rows = []
    for name, title in COLUMNS.items():
        over = found["macro"]["n_classes"][name]
        rows.append(
            (
                title,
                with_interval(found["macro"][name], intervals["macro"][name]),
                over,
                with_interval(found["micro"][name], intervals["micro"][name]),
            )
        )
    score = with_interval(found["published_score"], intervals["published_score"])
    terms = " + ".join(f"{factor} {name} {average}" for factor, average, name in PUBLISHED)
    where = found["macro"]["precision_where_predicted"]
    over = found["macro"]["n_classes"]["precision_where_predicted"]
    macro, ranges = found["macro"], intervals["macro"]
    known = [one for name, one in ranges.items() if macro[name] is not None]
    lost = max((one["undefined"] for one in known), default=0)
    note = f" In up to {lost} resamples a class is missing: macro intervals are without these."
    first = ", ".join(
        f"{COLUMNS[name]} {with_interval(found['macro'][name], intervals['macro'][name])}"
        for name in ("average_precision", "f1")
    )
    return [
        f"**{first}** (macro)",
        "",
        *table(("", "macro", "classes", "micro"), rows),
        *missing_intervals([("macro", macro, ranges)], COLUMNS),
        "",
        f"Published score: **{score}** ({terms.replace('_', ' ')}; at most 4.8).",
        f"Precision macro over the {over} classes that are predicted at all: {number(where)}.",
        f"{found['records']:,} records with {found['labels_per_record']:.2f} labels each; "
        f"{found['predicted_per_record']:.2f} predicted.{note if lost else ''}",
    ]


def tables(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Every class."""
    rows = []
    for name, values in found["per_class"].items():
        cells = values["confusion"]
        shown = values | {"positives": round(cells["tp"] + cells["fn"])}
        rows.append((name, shown, intervals["per_class"][name]))
    unseen = [name for name, values, _ in rows if values["positives"] == 0]
    lines = metrics_table("class", rows, COLUMNS, {"positives": "positives"})
    if unseen:
        lines += ["", f"Without positives, so not evaluated: {escaped(', '.join(unseen))}."]
    return ["## Classes", "", *lines]


def figures(
    predictions: Predictions,
    found: Metrics,
    intervals: Mapping[str, Any],
    title: str,
    pictures: Callable[[int], PairPicture] | None = None,
) -> dict[str, Callable[[], bytes]]:
    """What draws each of `FIGURES`.

    Raises:
      InputError: there are pictures of pairs.
    """
    if pictures:
        raise InputError(f"found pictures of pairs for {predictions.task}: only floods have pairs")
    probabilities, labels = predictions.probabilities, predictions.labels
    per_class = found["per_class"]
    order = sorted(
        range(len(predictions.classes)),
        key=lambda one: -(per_class[predictions.classes[one]]["average_precision"] or -1.0),
    )
    shown = [
        curves.Curve(
            name,
            probabilities[:, one],
            labels[:, one],
            np.ones(len(labels)),
            per_class[name],
        )
        for one, name in ((one, predictions.classes[one]) for one in order)
    ]
    return {
        "precision_recall.png": lambda: curves.precision_recall(
            shown, f"Precision and recall: {title}"
        ),
        "classes.png": lambda: class_figures.bars(
            found, intervals, f"Classes, 95 % intervals: {title}"
        ),
        "confusion.png": lambda: class_figures.confusion(
            probabilities,
            labels,
            predictions.classes,
            f"What was said where a class was missed: {title}",
        ),
    }
