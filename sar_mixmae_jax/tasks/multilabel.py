"""Of the metrics of many labels: the scores that are followed and compared, and the classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_mixmae_jax.evaluation import curves
from sar_mixmae_jax.evaluation.bootstrap import RAREST, BinaryProblem, Sampled, make_binary_problem
from sar_mixmae_jax.evaluation.metrics import (
    MACRO,
    PUBLISHED,
    Metrics,
    Scores,
    SummaryMetrics,
    multilabel_metrics,
)
from sar_mixmae_jax.evaluation.tables import metrics_table, missing_intervals, number, with_interval
from sar_mixmae_jax.tasks import multilabel_figures
from sar_mixmae_jax.tasks.flood_panels import PairPicture
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import Lines, escape_markdown, markdown_table

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions


CLASS_RATES = ("average_precision", "f1", "precision", "recall", "balanced_accuracy")


def _mean_over_classes(mean: str, rate: str) -> Callable[[Metrics], float | None]:
    return lambda metrics: metrics[mean][rate]


CLASS_SCORES: Scores = {
    "published_score": lambda metrics: metrics["published_score"],
    **{
        f"{rate}_{mean}": _mean_over_classes(mean, rate)
        for rate in CLASS_RATES
        for mean in ("macro", "micro")
    },
}
CLASS_COMPARED = {
    "average_precision_macro": "AP macro",
    "f1_macro": "F1 macro",
    "average_precision_micro": "AP micro",
}


def class_breakdowns(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """The average precision of every class."""
    classes = metrics["per_class"].items()
    return {"average precision by class": {name: one["average_precision"] for name, one in classes}}


def class_summary_metrics(metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
    """Means over the classes."""
    return SummaryMetrics("macro", metrics["macro"], intervals["macro"])


Path = tuple[str, ...]


def class_problems(
    predictions: Predictions, groups: np.ndarray, count: int
) -> Iterator[tuple[Path, BinaryProblem]]:
    """Every class, and all cells as one question."""
    probabilities, labels = predictions.probabilities, predictions.labels
    for index, name in enumerate(predictions.classes):
        one = make_binary_problem(probabilities[:, index], labels[:, index], groups, count)
        yield ("per_class", name), one
    repeated = np.repeat(groups, len(predictions.classes))
    yield ("micro",), make_binary_problem(probabilities.ravel(), labels.ravel(), repeated, count)


def class_averages(sampled: dict[Path, dict[str, Sampled]]) -> dict[Path, Sampled]:
    """Macro averages and the published score in every replicate; each rests on its rarest class."""
    classes = [found for path, found in sampled.items() if path[0] == "per_class"]
    micro = sampled[("micro",)]["f1"]
    means: dict[Path, Sampled] = {}
    for name in MACRO:
        read = "precision_asked" if name == "precision" else name
        there = [one[read] for one in classes if one[read].groups > 0]
        undefined = np.full(len(micro.values), np.nan)
        mean = np.mean([one.values for one in there], axis=0) if there else undefined
        fewest = min((one.groups for one in there), default=0)
        means["macro", name] = Sampled(mean, fewest, RAREST)
    every = means | {("micro", "f1"): micro}
    terms = [(factor, every[average, name]) for factor, average, name in PUBLISHED]
    score = np.sum([factor * one.values for factor, one in terms], axis=0)
    fewest = min(one.groups for _, one in terms)
    return means | {("published_score",): Sampled(score, fewest, RAREST)}


CLASS_FIGURES = {
    "precision_recall.png": "Precision and recall of every class, the best first.",
    "classes.png": "Average precision and F1 with their intervals, the most frequent class on top.",
    "confusion.png": "What was said, wrongly, of records in which a class was missed.",
}
CLASS_COLUMNS = {
    "average_precision": "AP",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "balanced accuracy",
}


def class_metrics(predictions: Predictions) -> Metrics:
    """`metrics.classification` of predictions."""
    return multilabel_metrics(predictions.probabilities, predictions.labels, predictions.classes)


def class_headline(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Macro and micro averages, and the published score."""
    rows = []
    for name, title in CLASS_COLUMNS.items():
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
        f"{CLASS_COLUMNS[name]} {with_interval(found['macro'][name], intervals['macro'][name])}"
        for name in ("average_precision", "f1")
    )
    return [
        f"**{first}** (macro)",
        "",
        *markdown_table(("", "macro", "classes", "micro"), rows),
        *missing_intervals([("macro", macro, ranges)], CLASS_COLUMNS),
        "",
        f"Published score: **{score}** ({terms.replace('_', ' ')}; at most 4.8).",
        f"Precision macro over the {over} classes that are predicted at all: {number(where)}.",
        f"{found['records']:,} records with {found['labels_per_record']:.2f} labels each; "
        f"{found['predicted_per_record']:.2f} predicted.{note if lost else ''}",
    ]


def class_tables(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """Every class."""
    rows = []
    for name, values in found["per_class"].items():
        cells = values["confusion"]
        shown = values | {"positives": round(cells["tp"] + cells["fn"])}
        rows.append((name, shown, intervals["per_class"][name]))
    unseen = [name for name, values, _ in rows if values["positives"] == 0]
    lines = metrics_table("class", rows, CLASS_COLUMNS, {"positives": "positives"})
    if unseen:
        lines += ["", f"Without positives, so not evaluated: {escape_markdown(', '.join(unseen))}."]
    return ["## Classes", "", *lines]


def class_figures(
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
        "classes.png": lambda: multilabel_figures.bars(
            found, intervals, f"Classes, 95 % intervals: {title}"
        ),
        "confusion.png": lambda: multilabel_figures.confusion(
            probabilities,
            labels,
            predictions.classes,
            f"What was said where a class was missed: {title}",
        ),
    }
