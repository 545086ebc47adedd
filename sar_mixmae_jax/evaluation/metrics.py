"""Metrics as functions of probabilities, labels and weights, computed by scikit-learn.

**Positive is strictly above 0.5**, as in torchmetrics.

**Undefined values are None**, never 0 and never NaN:

- recall needs a positive; the false-alarm rate a negative;
- average precision, F1, precision and balanced accuracy need both: without negatives nothing can
  be wrong, and without positives nothing can be found;
- precision also needs a positive prediction; F1 is then 0, by its definition.

**Macro averages** are over the classes for which a value is defined (see `n_classes` beside each),
so a class that is absent from the split changes nothing. A class that is present and never
predicted counts as precision 0 in `precision`, as in torchmetrics and the published numbers:
leaving it out would reward a model for never predicting a difficult class.
`precision_where_predicted` leaves it out.

`released_averages` has the averages over all classes as the released code counts them.

**Agreement with torchmetrics** (257 records, 19 classes, all present; its sums are float32),
ours minus theirs: average precision macro -4.9e-8, micro 6.2e-8; F1 macro -1.3e-8,
micro 1.3e-8; precision macro 5.0e-9, micro -2.9e-8; recall macro 9.1e-9, micro -1.1e-8. Where a
class has no positives, torchmetrics differs by definition: it counts it as 0 in the macro means of
F1 and precision.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

THRESHOLD = 0.5
TINY = np.finfo(float).tiny
"""Denominator in place of 0."""

PUBLISHED_SCORE = "published_score"
RATES = (
    "average_precision",
    "f1",
    "precision",
    "recall",
    "balanced_accuracy",
    "false_alarm_rate",
    "accuracy",
    "prevalence",
)
"""The rates of a binary problem, each between 0 and 1 or None."""

Metrics = Mapping[str, Any]
"""Metrics as in a report: values by name, nested by class, average or view."""

MACRO = ("average_precision", "f1", "precision", "recall", "balanced_accuracy")
PUBLISHED = (
    (1.3, "macro", "f1"),
    (1.1, "micro", "f1"),
    (1.2, "macro", "average_precision"),
    (1.2, "macro", "precision"),
)
"""Factor, average and rate of the terms of the score that selected the published classifier."""


def binary_metrics(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the metrics of a binary problem.

    Args:
      probabilities: (n,) float, of the positive class.
      labels: (n,) 1 for a positive.
      weights: (n,) float, weight of each row, at least 0; None: 1 each.

    Returns:
      `RATES` (None = undefined), `rows` and `confusion` (weights of true and false positives and
      negatives). Without rows, or without weight, every rate is None.
    """
    labels, predicted = labels.astype(bool), probabilities > THRESHOLD
    weights = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    rates: dict[str, Any] = dict.fromkeys(RATES)
    cells = dict.fromkeys(("tn", "fp", "fn", "tp"), 0.0)
    if weights.sum() > 0:
        matrix = confusion_matrix(labels, predicted, labels=[False, True], sample_weight=weights)
        cells = dict(zip(cells, map(float, matrix.ravel()), strict=True))
    negatives, positives = cells["tn"] + cells["fp"], cells["fn"] + cells["tp"]
    if negatives + positives > 0:
        rates["prevalence"] = positives / (negatives + positives)
        rates["accuracy"] = (cells["tn"] + cells["tp"]) / (negatives + positives)
    if negatives > 0:
        rates["false_alarm_rate"] = cells["fp"] / negatives
    if positives > 0:
        rates["recall"] = cells["tp"] / positives
    if negatives > 0 and positives > 0:
        precision, _, f1, _ = precision_recall_fscore_support(
            labels, predicted, average="binary", sample_weight=weights, zero_division=0.0
        )
        rates["f1"] = float(f1)
        rates["precision"] = float(precision) if cells["fp"] + cells["tp"] > 0 else None
        rates["balanced_accuracy"] = float(
            balanced_accuracy_score(labels, predicted, sample_weight=weights)
        )
        rates["average_precision"] = float(
            average_precision_score(labels, probabilities, sample_weight=weights)
        )
    return {"rows": len(labels), **rates, "confusion": cells}


def multilabel_metrics(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
) -> dict[str, Any]:
    """Return the metrics of several labels a record.

    Args:
      probabilities: (n, classes) float.
      labels: (n, classes), 1 where a record has the label.
      classes: names of the classes.

    Returns:
      `records`, `labels_per_record` and `predicted_per_record` (means over the records);
      `per_class` by name and `micro` (all cells as one problem), as of `binary_metrics`; `macro`
      (see the module; `n_classes` is the number of classes of each mean); `published_score`.
    """
    per_class = {
        name: binary_metrics(probabilities[:, number], labels[:, number])
        for number, name in enumerate(classes)
    }
    metrics = {
        "records": len(labels),
        "labels_per_record": float(labels.sum(1).mean()),
        "predicted_per_record": float((probabilities > THRESHOLD).sum(1).mean()),
        "per_class": per_class,
        "macro": _macro(per_class),
        "micro": binary_metrics(probabilities.ravel(), labels.ravel()),
    }
    return metrics | {PUBLISHED_SCORE: published_score(metrics)}


def _macro(per_class: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Return means over the classes for which a value is defined."""
    values: dict[str, list[float]] = {name: [] for name in (*MACRO, "precision_where_predicted")}
    for rates in per_class.values():
        for name in MACRO:
            value = rates[name]
            if name == "precision" and rates["f1"] is not None:  # present, but never predicted
                value = value or 0.0
            if value is not None:
                values[name].append(value)
        if rates["precision"] is not None:
            values["precision_where_predicted"].append(rates["precision"])
    means: dict[str, Any] = {
        name: float(np.mean(every)) if every else None for name, every in values.items()
    }
    return means | {"n_classes": {name: len(every) for name, every in values.items()}}


def published_score(metrics: Metrics) -> float | None:
    """Return 1.3 F1-macro + 1.1 F1-micro + 1.2 AP-macro + 1.2 precision-macro; at most 4.8."""
    terms = [(factor, metrics[average][name]) for factor, average, name in PUBLISHED]
    if any(value is None for _, value in terms):
        return None
    return float(sum(factor * value for factor, value in terms))


def released_averages(metrics: Metrics) -> dict[str, float]:
    """Return macro averages and the published score over all classes, as the released code has it.

    A class without positives counts as 0, the average precision of one without negatives as 1.

    Args:
      metrics: of `multilabel_metrics`.

    Returns:
      "average_precision", "f1", "precision" and "published_score".
    """
    classes: Mapping[str, Mapping[str, Any]] = metrics["per_class"]
    values: dict[str, list[float]] = {"average_precision": [], "f1": [], "precision": []}
    for rates in classes.values():
        cells = rates["confusion"]
        tp, predicted, positives = (
            cells["tp"],
            cells["tp"] + cells["fp"],
            cells["tp"] + cells["fn"],
        )
        average_precision = rates["average_precision"]
        if average_precision is None:
            average_precision = float(positives > 0)
        values["average_precision"].append(average_precision)
        values["f1"].append(2 * tp / max(predicted + positives, TINY))
        values["precision"].append(tp / max(predicted, TINY))
    macro = {name: float(np.mean(every)) for name, every in values.items()}
    parts = {"macro": macro, "micro": {"f1": metrics["micro"]["f1"] or 0.0}}
    score = sum(factor * parts[average][name] for factor, average, name in PUBLISHED)
    return macro | {PUBLISHED_SCORE: float(score)}


class SummaryMetrics(NamedTuple):
    """The main metrics of a report.

    Attributes:
      of: name of the average or view, as "macro" or "onset, by image".
      values: rates by name; None where undefined.
      intervals: by name of the rate, of `bootstrap.interval`.
    """

    of: str
    values: Mapping[str, Any]
    intervals: Mapping[str, Any]
