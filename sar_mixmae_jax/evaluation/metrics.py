"""Metrics of predictions: plain functions of probabilities, labels and weights, by scikit-learn.

**Positive is strictly above 0.5**, as torchmetrics has it.

**What is undefined is None**, never 0 and never NaN:

- recall needs a positive; the rate of false alarms a negative;
- average precision, F1, precision and balanced accuracy need both: without negatives nothing can
  be wrong, and without positives nothing can be found;
- precision also needs something that is predicted positive; F1 is then 0, by its definition.

**Macro averages** are over the classes for which a value can be asked at all (see `n_classes`
beside each), so a class that the split does not hold changes nothing. A class that is there and
never predicted counts as precision 0 in `precision`, as in torchmetrics and the published
numbers: left out, it would reward a model for never naming what is hard.
`precision_where_predicted` leaves it out.

**Agreement with torchmetrics** (257 records, 19 classes, every class there; its sums are
float32), ours minus theirs: average precision macro -4.9e-8, micro 6.2e-8; F1 macro -1.3e-8,
micro 1.3e-8; precision macro 5.0e-9, micro -2.9e-8; recall macro 9.1e-9, micro -1.1e-8. Where a
class has no positives, torchmetrics differs by definition: it counts 0 for it in the macro means
of F1 and precision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
)

THRESHOLD = 0.5
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
"""The values of one question, each between 0 and 1 or None."""

MACRO = ("average_precision", "f1", "precision", "recall", "balanced_accuracy")
PUBLISHED = (
    (1.3, "macro", "f1"),
    (1.1, "micro", "f1"),
    (1.2, "macro", "average_precision"),
    (1.2, "macro", "precision"),
)
"""Terms of the score by which the published classifier was selected."""


def binary_metrics(
    probabilities: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None
) -> dict[str, Any]:
    """Metrics of one question with two answers.

    Args:
      probabilities: (n,) of the positive answer.
      labels: (n,) 1 where it is true.
      weights: (n,) what each row counts, at least 0; one each if not given.

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
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """Metrics of several labels a record.

    Args:
      probabilities: (n, classes).
      labels: (n, classes), 1 where a record has the label.
      classes: names.
      weights: (n,) what each record counts; one each if not given.

    Returns:
      `records`, `labels_per_record` and `predicted_per_record` (means over the records);
      `per_class` by name and `micro` (all cells as one question), as of `binary`; `macro` (see the
      module; `n_classes` says over how many classes each mean is); `published_score`.
    """
    per_class = {
        name: binary_metrics(probabilities[:, number], labels[:, number], weights)
        for number, name in enumerate(classes)
    }
    repeated = None if weights is None else np.repeat(weights, len(classes))
    found = {
        "records": len(labels),
        "labels_per_record": float(np.average(labels.sum(1), weights=weights)),
        "predicted_per_record": float(
            np.average((probabilities > THRESHOLD).sum(1), weights=weights)
        ),
        "per_class": per_class,
        "macro": _macro(per_class),
        "micro": binary_metrics(probabilities.ravel(), labels.ravel(), repeated),
    }
    return found | {"published_score": published_score(found)}


def _macro(per_class: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Means over the classes for which a value is defined."""
    values: dict[str, list[float]] = {name: [] for name in (*MACRO, "precision_where_predicted")}
    for found in per_class.values():
        for name in MACRO:
            value = found[name]
            if name == "precision" and found["f1"] is not None:  # asked, if not answered
                value = value or 0.0
            if value is not None:
                values[name].append(value)
        if found["precision"] is not None:
            values["precision_where_predicted"].append(found["precision"])
    means: dict[str, Any] = {
        name: float(np.mean(every)) if every else None for name, every in values.items()
    }
    return means | {"n_classes": {name: len(every) for name, every in values.items()}}


def published_score(found: Mapping[str, Any]) -> float | None:
    """1.3 F1-macro + 1.1 F1-micro + 1.2 AP-macro + 1.2 precision-macro; at most 4.8."""
    terms = [(factor, found[average][name]) for factor, average, name in PUBLISHED]
    if any(value is None for _, value in terms):
        return None
    return float(sum(factor * value for factor, value in terms))


Metrics = Mapping[str, Any]
"""As reports have them: values by name, in groups by name."""


Scores = Mapping[str, Callable[[Metrics], float | None]]
"""What reads a value, by the name of the score."""


class SummaryMetrics(NamedTuple):
    """The first numbers of a report.

    Attributes:
      of: what they are the mean of, or about.
      values: by name; None where undefined.
      intervals: by name, {"low", "high"}.
    """

    of: str
    values: Mapping[str, Any]
    intervals: Mapping[str, Any]
