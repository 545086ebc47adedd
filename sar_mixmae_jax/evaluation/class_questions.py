"""What is resampled of predictions of many labels: every class, and their averages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.evaluation.interval import RAREST, Sampled
from sar_mixmae_jax.evaluation.metrics import MACRO, PUBLISHED
from sar_mixmae_jax.evaluation.replicates import Question, question

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

Path = tuple[str, ...]


def questions(
    predictions: Predictions, groups: np.ndarray, count: int
) -> Iterator[tuple[Path, Question]]:
    """Every class, and all cells as one question."""
    probabilities, labels = predictions.probabilities, predictions.labels
    for number, name in enumerate(predictions.classes):
        one = question(probabilities[:, number], labels[:, number], groups, count)
        yield ("per_class", name), one
    repeated = np.repeat(groups, len(predictions.classes))
    yield ("micro",), question(probabilities.ravel(), labels.ravel(), repeated, count)


def averages(sampled: dict[Path, dict[str, Sampled]]) -> dict[Path, Sampled]:
    """Macro averages and the published score in every replicate; each rests on its rarest class."""
    classes = [found for path, found in sampled.items() if path[0] == "per_class"]
    micro = sampled[("micro",)]["f1"]
    means: dict[Path, Sampled] = {}
    for name in MACRO:
        read = "precision_asked" if name == "precision" else name
        there = [one[read] for one in classes if one[read].groups > 0]
        undefined = np.full(len(micro.values), np.nan)
        mean = np.mean([one.values for one in there], axis=0) if there else undefined
        fewest = min((one.groups for one in there), default=0)
        means["macro", name] = Sampled(mean, fewest, RAREST)
    every = means | {("micro", "f1"): micro}
    terms = [(factor, every[average, name]) for factor, average, name in PUBLISHED]
    score = np.sum([factor * one.values for factor, one in terms], axis=0)
    fewest = min(one.groups for _, one in terms)
    return means | {("published_score",): Sampled(score, fewest, RAREST)}
