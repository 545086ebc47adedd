"""Of the metrics of many labels: the scores that are followed and compared, and the classes."""

from collections.abc import Callable, Mapping
from typing import Any

from sar_mixmae_jax.evaluation.scores import Lead, Metrics, Scores

RATES = ("average_precision", "f1", "precision", "recall", "balanced_accuracy")


def _mean(mean: str, rate: str) -> Callable[[Metrics], float | None]:
    return lambda metrics: metrics[mean][rate]


SCORES: Scores = {
    "published_score": lambda metrics: metrics["published_score"],
    **{f"{rate}_{mean}": _mean(mean, rate) for rate in RATES for mean in ("macro", "micro")},
}
COMPARED = {
    "average_precision_macro": "AP macro",
    "f1_macro": "F1 macro",
    "average_precision_micro": "AP micro",
}


def breakdowns(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """The average precision of every class."""
    classes = metrics["per_class"].items()
    return {"average precision by class": {name: one["average_precision"] for name, one in classes}}


def lead(metrics: Metrics, intervals: Mapping[str, Any]) -> Lead:
    """Means over the classes."""
    return Lead("macro", metrics["macro"], intervals["macro"])
