"""Rates of confusion matrices, against scikit-learn and by hand, and their intervals."""

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    confusion_matrix,
    jaccard_score,
    precision_recall_fscore_support,
)

from sar_mixmae_jax.evaluation.confusion import (
    average_precision,
    confusion_intervals,
    pooled_rates,
    report_rates,
)


def test_three_classes_are_averaged_as_in_scikit_learn():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 3, (2, 500))
    matrix = confusion_matrix(truth, predicted)
    precision, recall, f1, _ = precision_recall_fscore_support(truth, predicted, average="macro")
    expected = {
        "iou": jaccard_score(truth, predicted, average="macro"),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "mean_iou": jaccard_score(truth, predicted, average="macro"),
        "accuracy": accuracy_score(truth, predicted),
    }
    assert report_rates(pooled_rates(matrix)) == pytest.approx(expected)


def test_what_is_undefined_is_none():
    dry = np.array([[10, 0], [0, 0]])  # no water, and none predicted
    assert report_rates(pooled_rates(dry)) == {
        "iou": None,
        "f1": None,
        "precision": None,
        "recall": None,
        "mean_iou": 1.0,
        "accuracy": 1.0,
    }
    alarm = report_rates(pooled_rates(np.array([[8, 2], [0, 0]])))
    assert (alarm["iou"], alarm["precision"], alarm["recall"]) == (0.0, 0.0, None)
    assert set(report_rates(pooled_rates(np.zeros((2, 2), int))).values()) == {None}


def test_average_precision_is_that_of_the_binned_scores():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 400)
    places = np.clip(rng.normal(40 + 15 * labels, 20, 400), 0, 99).astype(int)
    curve = np.stack([np.bincount(places[labels == k], minlength=100) for k in (0, 1)])
    expected = average_precision_score(labels, places)
    assert average_precision(curve) == pytest.approx(expected)
    assert average_precision(np.stack([curve[0], 0 * curve[1]])) is None


def test_intervals_resample_groups_of_records():
    rng = np.random.default_rng(2)
    matrices = rng.integers(5, 50, (40, 2, 2))
    found = confusion_intervals({("pooled",): matrices}, np.arange(40), 400, 0)["pooled"]["iou"]
    center = report_rates(pooled_rates(matrices.sum(0)))["iou"]
    assert found["low"] < center < found["high"]
    single = pooled_rates(matrices)["iou"].std() / np.sqrt(40)
    assert 2 * single < found["high"] - found["low"] < 6 * single
    together = confusion_intervals({("pooled",): matrices}, np.arange(40) // 10, 400, 0)
    assert together["pooled"]["iou"]["reason"] == "rests on fewer than 5 groups"
    dry = matrices * np.array([[[1, 1], [0, 0]]])
    assert confusion_intervals({("x",): dry}, np.arange(40), 50, 0)["x"]["recall"]["groups"] == 0
