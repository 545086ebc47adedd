"""Of the metrics of floods: the scores that are followed and compared, and their breakdowns."""

from collections.abc import Callable, Mapping
from typing import Any

from sar_mixmae_jax.evaluation.scores import Lead, Metrics, Scores

RATES = ("average_precision", "f1", "precision", "recall", "balanced_accuracy", "accuracy")


def _headline(rate: str) -> Callable[[Metrics], float | None]:
    """Of onset images where they are known, every image counting once."""

    def read(metrics: Metrics) -> float | None:
        first, weighting = metrics["headline"]
        return metrics["evaluations"][first][weighting][rate]

    return read


SCORES: Scores = {rate: _headline(rate) for rate in RATES}
COMPARED = {
    "average_precision": "onset AP",
    "f1": "onset F1",
    "balanced_accuracy": "onset balanced accuracy",
}


def breakdowns(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """By image, of the first evaluation."""
    evaluation = metrics["evaluations"][metrics["headline"][0]]
    fractions = evaluation.get("by_flooded_fraction", {}).items()
    cases = evaluation.get("by_hard_case", {}).items()
    found = {
        "recall by flooded fraction": {name: one["recall"] for name, one in fractions},
        "recall by hard case": {name: one["recall"] for name, one in cases},
        "false alarms by hard case": {name: one["false_alarm_rate"] for name, one in cases},
    }
    return {title: parts for title, parts in found.items() if parts}


def lead(metrics: Metrics, intervals: Mapping[str, Any]) -> Lead:
    """Every new image once; of its onset, where that is known."""
    first, weighting = metrics["headline"]
    of = f"{first}, {weighting}".replace("_", " ")
    return Lead(of, metrics["evaluations"][first][weighting], intervals[first][weighting])
