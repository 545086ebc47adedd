"""One confidence interval from the replicates of a cluster bootstrap.

**Expanded percentiles.** Percentiles of the replicates keep to the range of a metric and need no
formula for its error, but they are too narrow for few groups: by √((g - 1) / g), and by using the
normal distribution where Student's belongs. So the tail of each side is Φ(-t √(g / (g - 1))),
with t the quantile of Student's distribution for g - 1 degrees of freedom (Hesterberg 2015, The
American Statistician 69(4), "expanded percentile interval"). BCa would need every metric once
more for each group left out, and is no better with few groups. g is the number of groups on which
a value rests: for recall, those that hold a positive. Measured in
400 simulated splits, 30 rows a group, scores and labels correlated within groups: intervals of
recall, AP, F1 and accuracy, meant to hold the truth in 95 %, held it in 84 to 86 % (plain
percentiles) and 91 to 93 % (expanded) at 6 groups, 87 to 91 % and 92 to 94 % at 12, 93 % and 93 to
94 % at 40.

**No interval** where g is below `FEWEST_GROUPS`, where more than half of the replicates are
undefined, or where all replicates are equal, since a bootstrap cannot imagine an error that it
has never seen. It says why.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from sar_mixmae_jax.evaluation.metrics import RATES, THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions

CONFIDENCE_LEVEL = 0.95
MIN_GROUPS = 5
RAREST = "the rarest class"
TOO_FEW, UNDEFINED, CONSTANT = (
    f"rests on fewer than {MIN_GROUPS} groups",
    "undefined in most resamples",
    "the same in all resamples",
)
"""Reasons for which there is no interval."""


class Sampled(NamedTuple):
    """A value in every replicate.

    Attributes:
      values: (r,) NaN = undefined.
      groups: on how many it rests.
      resting_on: what those groups hold: "rows", "positives", "negatives", "both", `RAREST`.
    """

    values: np.ndarray
    groups: int
    resting_on: str


def interval(found: Sampled) -> dict[str, Any]:
    """An interval as plain data.

    Returns:
      `low`, `high` (both None where there is none, and then `reason`, one of few, and `why`, with
      numbers), `groups` on which it rests,
      `undefined` replicates.
    """
    values = found.values[np.isfinite(found.values)]
    undefined = len(found.values) - len(values)
    result: dict[str, Any] = {
        "low": None, "high": None, "groups": found.groups, "undefined": undefined
    }  # fmt: skip
    if found.groups < MIN_GROUPS:
        what = {"rows": "", "both": " with positives and with negatives"}
        held = what.get(found.resting_on, f" with {found.resting_on}")
        number = "1 group" if found.groups == 1 else f"{found.groups} groups"
        why = f"{number}{held}: an interval needs {MIN_GROUPS}"
        return result | {"reason": TOO_FEW, "why": why}
    if undefined > len(values):
        why = f"undefined in {undefined} of {len(found.values)} replicates"
        return result | {"reason": UNDEFINED, "why": why}
    if values.min() == values.max():
        why = f"the same in all replicates of {found.groups} groups"
        return result | {"reason": CONSTANT, "why": why}
    tail = tail_probability(found.groups)
    low, high = np.quantile(values, (tail, 1 - tail))
    return result | {"low": float(low), "high": float(high)}


def tail_probability(groups: int, level: float = CONFIDENCE_LEVEL) -> float:
    """Share of the replicates beyond each end of an expanded percentile interval."""
    t = stats.t.ppf((1 + level) / 2, groups - 1)
    return float(stats.norm.cdf(-t * np.sqrt(groups / (groups - 1))))


class BinaryProblem(NamedTuple):
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


def make_binary_problem(
    probabilities: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    count: int,
    weights: np.ndarray | None = None,
) -> BinaryProblem:
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
    return BinaryProblem(
        counts=counts.reshape(count, 4),
        groups=groups[order].astype(np.intp),
        weights=None if weights is None else weights[order].astype(np.float64),
        positives=positives,
        ends=end,
        last=np.searchsorted(positives, end, side="right") - 1,
    )


def replicate_average_precision(asked: BinaryProblem, drawn: np.ndarray) -> float:
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


def replicate_rates(counts: np.ndarray, precision_average: np.ndarray) -> dict[str, np.ndarray]:
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


REPLICATES, MIN_REPLICATES = 1000, 200
MAX_CELLS = 5_000_000_000
"""Rows looked at in all replicates; more would take beyond about 20 s on one core."""

NEEDS = {
    "accuracy": "rows",
    "prevalence": "rows",
    "recall": "positives",
    "false_alarm_rate": "negatives",
}
"""Groups on which a value rests; all others need positives and negatives."""

Path = tuple[str, ...]


def replicates_for(rows: int) -> int:
    """1000, or as many as `MOST_CELLS` allows for so many rows of all questions, at least 200."""
    return max(MIN_REPLICATES, min(REPLICATES, MAX_CELLS // max(rows, 1)))


def intervals(
    predictions: Predictions, replicates: int | None = None, seed: int = 0
) -> dict[str, Any]:
    """Intervals of the metrics.

    Args:
      predictions: whose column "group" says what is independent.
      replicates: how many; by `replicates_for` if not given.
      seed: of the draws.

    Returns:
      `level`, `replicates`, `seed`, `groups` and `values`: where `metrics.classification` or
      `flood_metrics.flood`["evaluations"] has a value, this has an `interval`.
    """
    groups = predictions.groups
    count = int(groups.max()) + 1
    from sar_mixmae_jax.tasks.flood_metrics import view_path
    from sar_mixmae_jax.tasks.kinds import KINDS

    kind = KINDS[predictions.task]
    asked = dict(kind.questions(predictions, groups, count))
    number = replicates or replicates_for(sum(len(one.groups) for one in asked.values()))
    sampled = resample(asked, count, number, seed) if count >= MIN_GROUPS else {}
    if not sampled:
        sampled = {path: _unsampled(one) for path, one in asked.items()}
    values: dict[str, Any] = {}
    for path, found in sampled.items():
        for name in RATES:
            view_path(values, (*path, name), interval(found[name]))
    for path, averaged in kind.averages(sampled).items():
        view_path(values, path, interval(averaged))
    return {
        "level": CONFIDENCE_LEVEL,
        "replicates": number,
        "seed": seed,
        "groups": count,
        "values": values,
    }


def resample(
    asked: dict[Path, BinaryProblem], count: int, replicates: int, seed: int
) -> dict[Path, dict[str, Sampled]]:
    """The values of every question in every replicate.

    Args:
      asked: the questions.
      count: of groups.
      replicates: how often the groups are drawn.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    precisions = {path: np.full(replicates, np.nan) for path in asked}
    counts = {path: np.zeros((replicates, 4)) for path in asked}
    for number in range(replicates):
        drawn = np.bincount(rng.integers(count, size=count), minlength=count).astype(np.int32)
        for path, one in asked.items():
            precisions[path][number] = replicate_average_precision(one, drawn)
            counts[path][number] = drawn @ one.counts
    return {
        path: _sampled(one, replicate_rates(counts[path], precisions[path]))
        for path, one in asked.items()
    }


def _sampled(one: BinaryProblem, values: dict[str, np.ndarray]) -> dict[str, Sampled]:
    groups = {
        "rows": one.groups_with_rows,
        "positives": one.groups_with_positives,
        "negatives": one.groups_with_negatives,
        "both": min(one.groups_with_positives, one.groups_with_negatives),
    }
    needs = {name: NEEDS.get(name, "both") for name in values}
    return {name: Sampled(values[name], groups[need], need) for name, need in needs.items()}


def _unsampled(one: BinaryProblem) -> dict[str, Sampled]:
    """As from `resample` without a replicate: only the numbers of groups."""
    return _sampled(one, replicate_rates(np.empty((0, 4)), np.empty(0)))
