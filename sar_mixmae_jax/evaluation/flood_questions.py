"""What is resampled of predictions of floods: every view of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sar_mixmae_jax.evaluation.flood_metrics import views
from sar_mixmae_jax.evaluation.replicates import Question, question

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions


def questions(
    predictions: Predictions, groups: np.ndarray, count: int
) -> Iterator[tuple[tuple[str, ...], Question]]:
    """Every view with its weights."""
    probabilities, labels = predictions.probabilities, predictions.labels
    for view in views(labels, predictions.columns):
        rows = view.rows
        weights = None if (view.weights == 1).all() else view.weights
        yield (
            view.path,
            question(probabilities[rows], labels[rows], groups[rows], count, weights),
        )
