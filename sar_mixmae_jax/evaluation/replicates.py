"""Metrics of many resamples of groups, without sorting or copying a row again.

A resample of groups is nothing but a whole number for each group: how often it was drawn. So rows
are sorted by score once; the counts of right and wrong answers are sums over groups, a product of
matrices; and average precision is a cumulative sum of those whole numbers along the sorted rows,
looked up at the positives. Equal to scikit-learn's with these numbers as `sample_weight`.
"""

from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.evaluation.metrics import RATES, THRESHOLD


class Question(NamedTuple):
    """One question with two answers, sorted for resampling.

    Attributes:
      counts: (groups, 4) weights of tn, fp, fn, tp in each group.
      groups: (n,) group of each row, from the highest score to the lowest.
      weights: (n,) of the rows in that order; None: one each.
      positives: (p,) places of the positives in that order.
      ends: (p,) place of the last row with the score of each positive.
      last: (p,) the last positive with that score, as a number among the positives.
    """

    counts: np.ndarray
    groups: np.ndarray
    weights: np.ndarray | None
    positives: np.ndarray
    ends: np.ndarray
    last: np.ndarray

    @property
    def groups_with_positives(self) -> int:
        """Groups in which there is a positive."""
        return int((self.counts[:, 2:].sum(1) > 0).sum())

    @property
    def groups_with_negatives(self) -> int:
        """Groups in which there is a negative."""
        return int((self.counts[:, :2].sum(1) > 0).sum())

    @property
    def groups_with_rows(self) -> int:
        """Groups in which there is a row."""
        return int((self.counts.sum(1) > 0).sum())


def question(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    count: int,
    weights: np.ndarray | None = None,
) -> Question:
    """Sorts rows for resampling.

    Args:
      probabilities: (n,) of the positive answer.
      labels: (n,) 1 where it is true.
      groups: (n,) number of the group of each row, from 0.
      count: of groups.
      weights: (n,) what each row counts; one each if not given.
    """
    labels = labels.astype(bool)
    cell = 2 * labels + (probabilities > THRESHOLD)
    counts = np.bincount(4 * groups + cell, weights, 4 * count).astype(np.float64)
    order = np.argsort(-probabilities, kind="stable")
    scores = probabilities[order]
    starts = np.flatnonzero(np.diff(scores, prepend=np.inf))  # of runs of one score
    ends = np.append(starts[1:], len(scores)) - 1
    run = np.cumsum(np.diff(scores, prepend=scores[:1]) != 0)
    positives = np.flatnonzero(labels[order])
    end = ends[run[positives]]
    return Question(
        counts=counts.reshape(count, 4),
        groups=groups[order].astype(np.intp),
        weights=None if weights is None else weights[order].astype(np.float64),
        positives=positives,
        ends=end,
        last=np.searchsorted(positives, end, side="right") - 1,
    )


def average_precision(asked: Question, drawn: np.ndarray) -> float:
    """Average precision where each group counts as often as it was drawn; NaN without positives.

    Args:
      asked: the rows.
      drawn: (groups,) whole numbers, int32.
    """
    if not len(asked.positives):
        return np.nan
    weight = np.take(drawn, asked.groups, mode="clip")  # "clip" spares the check of every index
    if asked.weights is not None:
        weight = weight * asked.weights
    found = np.take(weight, asked.positives)
    total = np.cumsum(weight, dtype=weight.dtype)[asked.ends]
    true = np.cumsum(found, dtype=weight.dtype)
    if not true[-1] > 0:
        return np.nan
    with np.errstate(invalid="ignore"):
        precision = np.where(found > 0, true[asked.last] / total, 0.0)
    return float(np.dot(found, precision) / true[-1])


def rates(counts: np.ndarray, precision_average: np.ndarray) -> dict[str, np.ndarray]:
    """Values of `metrics.binary` for many resamples at once, NaN where undefined.

    Args:
      counts: (r, 4) weights of tn, fp, fn, tp.
      precision_average: (r,) of `average_precision`.

    Returns:
      (r,) each: those of `metrics.RATES`, and "precision_asked", which is 0 where there are both
      answers and nothing is predicted positive.
    """
    tn, fp, fn, tp = counts.T
    both = (tn + fp > 0) & (fn + tp > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        recall, alarms = tp / (fn + tp), fp / (tn + fp)
        precision = np.where(both, tp / (fp + tp), np.nan)
        found = {
            "average_precision": np.where(both, precision_average, np.nan),
            "f1": np.where(both, 2 * tp / (2 * tp + fp + fn), np.nan),
            "precision": precision,
            "recall": recall,
            "balanced_accuracy": (recall + 1 - alarms) / 2,
            "false_alarm_rate": alarms,
            "accuracy": (tn + tp) / counts.sum(1),
            "prevalence": (fn + tp) / counts.sum(1),
        }
    found = {name: found[name] for name in RATES}
    return found | {"precision_asked": np.where(both & np.isnan(precision), 0.0, precision)}
