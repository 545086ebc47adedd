"""Metrics of a segmentation from the counts of pixels in its predictions.

**All labelled pixels count where there are two classes.** A pixel without a measurement has no
prediction; it counts as predicted to be of the first class, which is what a threshold finds there,
so that labelled water without a measurement is missed water. `measured` leaves these pixels out,
and so do all scores where there are more classes.
"""

from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.bootstrap import Path
from sar_mixmae_jax.evaluation.confusion import (
    average_precision,
    class_rates,
    pooled_rates,
    report_rates,
)
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.segmentation_baselines import BASELINES

BINS = 100
"""Bins of the probability of the second class, so thresholds in steps of 0.01."""

PARTS = {"event": "event", "hard_case": "hard case"}
"""Columns by which records are reported, with their titles."""

NO_PART = "none"
"""Title of the records whose column is empty."""


def labelled_pixels(predictions: Predictions) -> np.ndarray:
    """Return the labelled pixels of every record and class, (n, classes) int64."""
    measured = predictions.arrays["confusion"].astype(np.int64).sum(2)
    return measured + predictions.arrays["unmeasured"]


def with_unmeasured(predictions: Predictions, name: str) -> np.ndarray:
    """Return a confusion matrix of the pixels that count, (n, classes, classes) int64."""
    matrix = predictions.arrays[name].astype(np.int64)
    if matrix.shape[-1] == 2:
        matrix[:, :, 0] += predictions.arrays["unmeasured"]
    return matrix


def matrices(predictions: Predictions) -> dict[Path, np.ndarray]:
    """Return the matrices whose pooled rates are reported, (n, classes, classes) by path.

    Records that are not of a part are zero in its matrix.
    """
    pooled = with_unmeasured(predictions, "confusion")
    found: dict[Path, np.ndarray] = {
        ("pooled",): pooled,
        ("measured",): predictions.arrays["confusion"].astype(np.int64),
    }
    for name in BASELINES:
        if name in predictions.arrays:
            found["baselines", name] = with_unmeasured(predictions, name)
            found["baselines_measured", name] = predictions.arrays[name].astype(np.int64)
    for part in PARTS:
        column = predictions.columns.get(part)
        for value in () if column is None else np.unique(column):
            inside = (column == value)[:, None, None]
            found[f"by_{part}", str(value) or NO_PART] = np.where(inside, pooled, 0)
    return found


def compute_metrics(predictions: Predictions) -> dict[str, Any]:
    """Return the metrics of a segmentation.

    Returns:
      `pooled`, `measured`: `confusion.RATES` and the matrix as `confusion`, `pooled` also
      `average_precision`; `baselines`, `baselines_measured`, `by_event` and `by_hard_case`, each by
      name; `by_class`: rates of one class and its labelled `pixels`, of which `unmeasured`;
      `by_record`: rates and labelled pixels by id; `records`, and `unlabelled` ones, without a
      labelled pixel.
    """
    nested = ("baselines", "baselines_measured", *(f"by_{part}" for part in PARTS))
    metrics: dict[str, Any] = {name: {} for name in nested}
    for path, matrix in matrices(predictions).items():
        total = matrix.sum(0)
        inside = int((matrix.sum((1, 2)) > 0).sum())
        content = report_rates(pooled_rates(total)) | {
            "records": inside,
            "confusion": total.tolist(),
        }
        *above, name = path
        (metrics[above[0]] if above else metrics)[name] = content
    curve = predictions.arrays.get("curve")
    metrics["pooled"]["average_precision"] = (
        None if curve is None else average_precision(curve.astype(np.int64).sum(0))
    )
    pooled, labelled = with_unmeasured(predictions, "confusion"), labelled_pixels(predictions)
    by_class = class_rates(pooled.sum(0))
    metrics["by_class"] = {
        name: {
            **report_rates({rate: values[number] for rate, values in by_class.items()}),
            "pixels": int(labelled[:, number].sum()),
            "unmeasured": int(predictions.arrays["unmeasured"][:, number].sum()),
            "records": int((labelled[:, number] > 0).sum()),
        }
        for number, name in enumerate(predictions.classes)
    }
    rates = pooled_rates(pooled)
    metrics["by_record"] = {
        str(name): {
            **report_rates({rate: values[row] for rate, values in rates.items()}),
            "pixels": int(labelled[row].sum()),
        }
        for row, name in enumerate(predictions.ids)
    }
    metrics["records"] = len(predictions.ids)
    metrics["unlabelled"] = int((labelled.sum(1) == 0).sum())
    return metrics
