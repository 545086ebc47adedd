"""Land-cover classification: several labels an image."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
import optax

from sar_mixmae_jax.data.patch_dataset import PatchDataset, read_column
from sar_mixmae_jax.evaluation import curves
from sar_mixmae_jax.evaluation.bootstrap import RAREST, BinaryProblem, Sampled, make_binary_problem
from sar_mixmae_jax.evaluation.metrics import (
    MACRO,
    PUBLISHED,
    PUBLISHED_SCORE,
    Metrics,
    SummaryMetrics,
    multilabel_metrics,
    released_averages,
)
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.heads import Classifier
from sar_mixmae_jax.tasks import classification_figures
from sar_mixmae_jax.tasks.base import LabelUnits, Task, mean_per_record
from sar_mixmae_jax.tasks.registry import register_task
from sar_mixmae_jax.tasks.task_report import Figures, Path, Pictures
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import (
    Lines,
    escape_markdown,
    format_interval,
    format_metric,
    markdown_table,
    metrics_table,
    missing_interval_notes,
)

RATE_TITLES = {
    "average_precision": "AP",
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "balanced_accuracy": "balanced accuracy",
}
AVERAGES = ("macro", "micro")
AS_RELEASED = "as_released"
"""Key of the averages that count classes as the released code does."""

RELEASED_SCORE = f"{PUBLISHED_SCORE}_{AS_RELEASED}"


@register_task
class Classification(Task):
    """Multi-label classification of land cover."""

    name = "classification"
    optional_fields = ("labels",)
    exclusive = False
    score_names = (
        PUBLISHED_SCORE,
        RELEASED_SCORE,
        *(f"{rate}_{average}" for rate in RATE_TITLES for average in ("macro", "micro")),
    )
    score_titles: ClassVar = {
        "average_precision_macro": "AP macro",
        "f1_macro": "F1 macro",
        "average_precision_micro": "AP micro",
    }
    captions: ClassVar = {
        "precision_recall.png": "Precision and recall of every class, the best first.",
        "classes.png": "Average precision and F1 with their intervals, the most frequent class on "
        "top.",
        "confusion.png": "Classes predicted wrongly for records in which another class was missed.",
    }

    # ---- records

    def matches(self, dataset: PatchDataset) -> bool:
        """Return whether the dataset has class names and no pairs of dates."""
        return dataset.pairs is None and bool(dataset.classes)

    def class_names(self, dataset: PatchDataset) -> tuple[str, ...]:
        """Return the classes of the dataset.

        Raises:
          InputError: it has none.
        """
        if not dataset.classes:
            raise InputError(
                f"{dataset.name} has no labels: choose a labelled dataset, such as bigearthnet_s1"
            )
        return dataset.classes

    def label_units(self, dataset: PatchDataset) -> LabelUnits:
        """Return each record as a unit of its own."""
        labels = read_column(dataset, "labels")
        return LabelUnits(labels, np.arange(len(labels)))

    # ---- model and loss

    def make_model(
        self, arch: Architecture, outputs: int, config: Mapping[str, Any], **settings: Any
    ) -> Classifier:
        """Return a classifier of the mean token."""
        return Classifier(arch, outputs, **settings)

    def loss(self, logits: jax.Array, labels: jax.Array) -> jax.Array:
        """Return the multi-label soft-margin loss: the mean logistic loss over the classes."""
        return mean_per_record(
            optax.sigmoid_binary_cross_entropy(logits, labels.astype(logits.dtype))
        )

    # ---- metrics

    def metrics(self, predictions: Predictions) -> Metrics:
        """Return `metrics.multilabel_metrics`, and `metrics.released_averages` as "as_released"."""
        metrics = multilabel_metrics(
            predictions.probabilities, predictions.labels, predictions.classes
        )
        return metrics | {AS_RELEASED: released_averages(metrics)}

    def scores(self, metrics: Metrics) -> dict[str, float | None]:
        """Return averages over the classes, and the published score."""
        averages = {
            f"{rate}_{average}": metrics[average][rate]
            for rate in RATE_TITLES
            for average in AVERAGES
        }
        released = metrics.get(AS_RELEASED, {}).get(PUBLISHED_SCORE)  # older reports lack it
        return {PUBLISHED_SCORE: metrics[PUBLISHED_SCORE], RELEASED_SCORE: released, **averages}

    def breakdowns(self, metrics: Metrics) -> dict[str, dict[str, float | None]]:
        """Return the average precision of each class."""
        classes = metrics["per_class"].items()
        precisions = {name: values["average_precision"] for name, values in classes}
        return {"average precision by class": precisions}

    # ---- confidence intervals

    def bootstrap_targets(self, predictions: Predictions) -> dict[Path, BinaryProblem]:
        """Return each class, and all cells as one problem."""
        probabilities, labels = predictions.probabilities, predictions.labels
        groups, count = predictions.groups, predictions.number_of_groups
        problems: dict[Path, BinaryProblem] = {
            ("per_class", name): make_binary_problem(
                probabilities[:, column], labels[:, column], groups, count
            )
            for column, name in enumerate(predictions.classes)
        }
        repeated = np.repeat(groups, len(predictions.classes))
        problems["micro",] = make_binary_problem(
            probabilities.ravel(), labels.ravel(), repeated, count
        )
        return problems

    def macro_averages(
        self, replicates: Mapping[Path, Mapping[str, Sampled]]
    ) -> dict[Path, Sampled]:
        """Return macro averages and the published score; each rests on its rarest class."""
        classes = [rates for path, rates in replicates.items() if path[0] == "per_class"]
        micro = replicates["micro",]["f1"]
        averages: dict[Path, Sampled] = {}
        for name in MACRO:
            read = "precision_or_zero" if name == "precision" else name
            present = [rates[read] for rates in classes if rates[read].groups > 0]
            undefined = np.full(len(micro.values), np.nan)
            mean = np.mean([rate.values for rate in present], axis=0) if present else undefined
            fewest = min((rate.groups for rate in present), default=0)
            averages["macro", name] = Sampled(mean, fewest, RAREST)
        parts = averages | {("micro", "f1"): micro}
        terms = [(factor, parts[average, name]) for factor, average, name in PUBLISHED]
        score = np.sum([factor * part.values for factor, part in terms], axis=0)
        fewest = min(part.groups for _, part in terms)
        return averages | {(PUBLISHED_SCORE,): Sampled(score, fewest, RAREST)}

    # ---- report

    def summary_metrics(self, metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
        """Return the macro averages."""
        return SummaryMetrics("macro", metrics["macro"], intervals["macro"])

    def report_header(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return macro and micro averages, and the published score."""
        macro, ranges = metrics["macro"], intervals["macro"]
        rows = [
            (
                title,
                format_interval(macro[name], ranges[name]),
                macro["n_classes"][name],
                format_interval(metrics["micro"][name], intervals["micro"][name]),
            )
            for name, title in RATE_TITLES.items()
        ]
        score = format_interval(metrics[PUBLISHED_SCORE], intervals[PUBLISHED_SCORE])
        terms = " + ".join(f"{factor} {name} {average}" for factor, average, name in PUBLISHED)
        where = format_metric(macro["precision_where_predicted"])
        over = macro["n_classes"]["precision_where_predicted"]
        given = [interval for interval in ranges.values() if interval["low"] is not None]
        lost = max((interval["undefined"] for interval in given), default=0)
        note = f" In up to {lost} resamples a class is missing: macro intervals leave these out."
        evaluated = [v for v in metrics["per_class"].values() if v["average_precision"] is not None]
        chance = float(np.mean([v["prevalence"] for v in evaluated])) if evaluated else None
        first = ", ".join(
            f"{RATE_TITLES[name]} {format_interval(macro[name], ranges[name])}"
            for name in ("average_precision", "f1")
        )
        return [
            f"**{first}** (macro; AP of random scores {format_metric(chance)})",
            "",
            *markdown_table(("", "macro", "classes", "micro"), rows),
            *missing_interval_notes([("macro", macro, ranges)], RATE_TITLES),
            "",
            f"Score by the published formula: **{score}** ({terms.replace('_', ' ')}; at most "
            "4.8).",
            *_released_lines(metrics),
            f"Precision macro over the {over} classes that are predicted at all: {where}.",
            f"{metrics['records']:,} records with {metrics['labels_per_record']:.2f} labels each; "
            f"{metrics['predicted_per_record']:.2f} predicted.{note if lost else ''}",
        ]

    def tables(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return a table of the classes."""
        rows = []
        for name, values in metrics["per_class"].items():
            cells = values["confusion"]
            row = values | {"positives": round(cells["tp"] + cells["fn"])}
            rows.append((name, row, intervals["per_class"][name]))
        absent = [name for name, values, _ in rows if values["positives"] == 0]
        lines = metrics_table("class", rows, RATE_TITLES, {"positives": "positives"})
        if absent:
            names = escape_markdown(", ".join(absent))
            lines += ["", f"Without positives, so not evaluated: {names}."]
        return ["## Classes", "", *lines]

    def figures(
        self,
        predictions: Predictions,
        metrics: Metrics,
        intervals: Mapping[str, Any],
        title: str,
        pictures: Pictures | None = None,
    ) -> Figures:
        """Return curves and bars of the classes, and a confusion matrix.

        Raises:
          InputError: `pictures` are given.
        """
        if pictures:
            raise InputError(f"found pictures for {predictions.task}: expected none")
        probabilities, labels = predictions.probabilities, predictions.labels
        per_class = metrics["per_class"]
        order = sorted(
            range(len(predictions.classes)),
            key=lambda column: (
                -(per_class[predictions.classes[column]]["average_precision"] or -1.0)
            ),
        )
        shown = [
            curves.Curve(
                predictions.classes[column],
                probabilities[:, column],
                labels[:, column],
                np.ones(len(labels)),
                per_class[predictions.classes[column]],
            )
            for column in order
        ]
        return {
            "precision_recall.png": lambda: curves.precision_recall(
                shown, f"Precision and recall: {title}"
            ),
            "classes.png": lambda: classification_figures.bars(
                metrics, intervals, f"Classes, 95 % intervals: {title}"
            ),
            "confusion.png": lambda: classification_figures.confusion(
                probabilities,
                labels,
                predictions.classes,
                f"Predicted where a class was missed: {title}",
            ),
        }


def _released_lines(metrics: Metrics) -> Lines:
    """Return the averages that count all classes, where they differ from those of the report."""
    released, macro = metrics.get(AS_RELEASED, {}), metrics["macro"]
    same = not released or all(
        macro[name] is not None and abs(macro[name] - released[name]) < 1e-9
        for name in ("average_precision", "f1", "precision")
    )
    if same:
        return []
    values = ", ".join(
        f"{title} {format_metric(released[name])}"
        for name, title in (*RATE_TITLES.items(), (PUBLISHED_SCORE, "published score"))
        if name in released
    )
    return [
        "With classes without positives as 0 and the AP of those without negatives as 1, as the "
        f"released code counts them (macro): {values}."
    ]
