"""Confidence intervals by resampling whole groups with replacement (cluster bootstrap).

Rows of a group (patches of a scene, pairs of a sequence) are alike, so an interval from resampled
rows would be far too narrow. Groups are drawn with replacement, as many as there are; all metrics
come from the same draws.

A replicate in which a value is undefined is left out and counted. A macro average is undefined in
it if any class that the whole split can answer is, so that all replicates average the same
classes.

**A macro average rests on the groups of its rarest class**, not on all. Measured in 250 simulated
splits of 40 groups, 20 rows each, of four classes one in only 5, 8 or 12 groups: intervals of the
macro averages, meant to hold the truth in 95 %, held it, with all groups counted, in 91, 92, 90 %
(AP) and 89, 94, 93 % (recall); with those of the rarest class in 96, 96, 93 % and 94, 98, 97 %;
those of F1 and precision in 95 % or more. They do not mend luck: where a class is in a group with
a chance of 15 %, of 300 splits of 20 groups the 63 that happened to hold it in 5 or more held the
AP of all the world in 78 % (all groups counted: 70 %).
"""

from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.flood_metrics import place
from sar_mixmae_jax.evaluation.interval import FEWEST_GROUPS, LEVEL, Sampled, interval
from sar_mixmae_jax.evaluation.kinds import KINDS
from sar_mixmae_jax.evaluation.metrics import RATES
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.evaluation.replicates import Question, average_precision, rates

REPLICATES, FEWEST_REPLICATES = 1000, 200
MOST_CELLS = 5_000_000_000
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
    return max(FEWEST_REPLICATES, min(REPLICATES, MOST_CELLS // max(rows, 1)))


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
    kind = KINDS[predictions.task]
    asked = dict(kind.questions(predictions, groups, count))
    number = replicates or replicates_for(sum(len(one.groups) for one in asked.values()))
    sampled = resample(asked, count, number, seed) if count >= FEWEST_GROUPS else {}
    if not sampled:
        sampled = {path: _unsampled(one) for path, one in asked.items()}
    values: dict[str, Any] = {}
    for path, found in sampled.items():
        for name in RATES:
            place(values, (*path, name), interval(found[name]))
    for path, averaged in kind.averages(sampled).items():
        place(values, path, interval(averaged))
    return {
        "level": LEVEL, "replicates": number, "seed": seed, "groups": count, "values": values
    }  # fmt: skip


def resample(
    asked: dict[Path, Question], count: int, replicates: int, seed: int
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
            precisions[path][number] = average_precision(one, drawn)
            counts[path][number] = drawn @ one.counts
    return {
        path: _sampled(one, rates(counts[path], precisions[path])) for path, one in asked.items()
    }


def _sampled(one: Question, values: dict[str, np.ndarray]) -> dict[str, Sampled]:
    groups = {
        "rows": one.groups_with_rows,
        "positives": one.groups_with_positives,
        "negatives": one.groups_with_negatives,
        "both": min(one.groups_with_positives, one.groups_with_negatives),
    }
    needs = {name: NEEDS.get(name, "both") for name in values}
    return {name: Sampled(values[name], groups[need], need) for name, need in needs.items()}


def _unsampled(one: Question) -> dict[str, Sampled]:
    """As from `resample` without a replicate: only the numbers of groups."""
    return _sampled(one, rates(np.empty((0, 4)), np.empty(0)))
