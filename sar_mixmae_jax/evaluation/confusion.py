"""Rates of confusion matrices of pixels, with intervals that resample whole records.

A matrix is (…, classes, classes): rows are the truth, columns the prediction. With two classes the
rates are those of the second, as of water; with more they are means over the classes. Undefined
values (a denominator of 0) are NaN here and None in `report_rates`. Also Otsu's threshold, which
baselines classify pixels and changes with.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.bootstrap import RAREST, Path, Sampled, interval, set_path

RATES = ("iou", "f1", "precision", "recall", "mean_iou", "accuracy")
"""Rates of a matrix."""

OVERLAPS = RATES[:4]
"""Rates of one class."""


def class_rates(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return `OVERLAPS` of every class, (…, classes) float64 by name."""
    matrix = confusion.astype(np.float64)
    hit = np.diagonal(matrix, axis1=-2, axis2=-1)
    true, predicted = matrix.sum(-1), matrix.sum(-2)
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            "iou": hit / (true + predicted - hit),
            "f1": 2 * hit / (true + predicted),
            "precision": hit / predicted,
            "recall": hit / true,
        }


def pooled_rates(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Return `RATES` of matrices, (…,) float64 by name."""
    by_class = class_rates(confusion)
    binary = confusion.shape[-1] == 2
    means = {name: _mean(values) for name, values in by_class.items()}
    rates = {name: values[..., 1] for name, values in by_class.items()} if binary else means
    total = confusion.sum((-2, -1)).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        accuracy = np.trace(confusion, axis1=-2, axis2=-1) / total
    return {**rates, "mean_iou": means["iou"], "accuracy": accuracy}


def _mean(values: np.ndarray) -> np.ndarray:
    """Return the mean of the last axis over what is defined; NaN where nothing is."""
    defined = np.isfinite(values)
    count = defined.sum(-1)
    total = np.where(defined, values, 0.0).sum(-1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def report_rates(rates: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Return scalar rates as JSON types."""
    return {name: float(value) if np.isfinite(value) else None for name, value in rates.items()}


def average_precision(curve: np.ndarray) -> float | None:
    """Return the average precision of counts by probability; None without both classes.

    Args:
      curve: (2, bins) counts of negatives and of positives, by rising probability.
    """
    negatives, positives = np.cumsum(curve[:, ::-1].astype(np.float64), axis=1)
    if not negatives[-1] or not positives[-1]:
        return None
    steps = np.diff(positives, prepend=0.0) / positives[-1]
    precision = positives / np.maximum(positives + negatives, 1)
    return float((steps * precision).sum())


def confusion_intervals(
    matrices: Mapping[Path, np.ndarray],
    groups: np.ndarray,
    replicates: int,
    seed: int,
) -> dict[str, Any]:
    """Return confidence intervals of `RATES` of pooled matrices, nested by their paths.

    Args:
      matrices: (records, classes, classes) by path; all are resampled alike.
      groups: (records,) int from 0, what is drawn as a whole.
      replicates: number of resamples.
      seed: random seed of the resampling.

    Returns:
      `bootstrap.interval` of each rate.
    """
    count = int(groups.max()) + 1
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), replicates)
    values: dict[str, Any] = {}
    for path, confusion in matrices.items():
        classes = confusion.shape[-1]
        grouped = np.zeros((count, classes, classes))
        np.add.at(grouped, groups, confusion)
        sums = (drawn @ grouped.reshape(count, -1)).reshape(-1, classes, classes)
        with_class = (grouped.sum(-1) > 0).sum(0)
        rows = int((grouped.sum((1, 2)) > 0).sum())
        positives = (int(with_class[1]), "positives") if classes == 2 else (0, "")
        rarest = int(with_class[with_class > 0].min(initial=rows)), RAREST
        for name, sampled in pooled_rates(sums).items():
            needed = (rows, "rows") if name == "accuracy" else rarest
            if classes == 2 and name in OVERLAPS:
                needed = positives
            set_path(values, (*path, name), interval(Sampled(sampled, *needed)))
    return values


def otsu_cut(counts: np.ndarray, edges: np.ndarray) -> float:
    """Return the edge that maximises the between-class variance of a histogram.

    Args:
      counts: (bins,), not all 0.
      edges: (bins + 1,).

    Returns:
      The middle one of equally good edges, as between two modes with empty bins between them.
    """
    centres = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1].astype(np.float64)
    above = counts.sum() - below
    total = np.cumsum(counts * centres)
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = total[:-1] / below - (total[-1] - total[:-1]) / above
    between = np.where((below > 0) & (above > 0), below * above * np.square(distance), 0.0)
    best = np.flatnonzero(between >= between.max() * (1 - 1e-12))
    return float(edges[1 + best[(len(best) - 1) // 2]])
