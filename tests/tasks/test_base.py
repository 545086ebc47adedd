"""Guarantees of the task interface that hold for every task."""

from functools import partial

import numpy as np
import pytest

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.evaluation_report import report_files
from sar_mixmae_jax.tasks.registry import get_task, task_names
from sar_mixmae_jax.tasks.segmentation_outputs import count_pixels
from tests.tasks.test_evaluation_report import classified, paired


def segmented(task: str) -> Predictions:
    """Six records of 8 x 8 pixels, a third of them water, predicted with noise."""
    rng = np.random.default_rng(0)
    labels = (rng.random((6, 8, 8)) < 0.3).astype(np.int8)
    labels[0, 0] = NOT_LABELLED
    logits = np.stack([np.zeros(labels.shape), labels + rng.normal(0, 1, labels.shape)], -1)
    valid = rng.random(labels.shape) < 0.9
    arrays = {
        name: np.asarray(array) for name, array in count_pixels(logits, labels, valid).items()
    }
    classes = arrays.pop("labels")
    del arrays["predicted"], arrays["truth"]
    arrays["loss"] = np.ones(6, np.float32)
    ids = np.array([f"chip{number}" for number in range(6)])
    means = logits.mean((1, 2)).astype(np.float32)
    return Predictions(
        task, ("land", "water"), ids, means, classes, {"group": ids}, {"dataset": "chips"}, arrays
    )


PREDICTIONS = {
    "classification": classified,
    "flood": paired,
    "pair_segmentation": partial(segmented, "pair_segmentation"),
    "segmentation": partial(segmented, "segmentation"),
}


def test_each_task_of_the_package_is_found():
    assert task_names() == sorted(PREDICTIONS)
    assert [get_task(name).name for name in task_names()] == task_names()


@pytest.mark.parametrize("name", PREDICTIONS)
def test_scores_have_the_names_that_the_task_declares(name):
    task, predictions = get_task(name), PREDICTIONS[name]()
    scores = task.scores(task.metrics(predictions))
    assert set(scores) == set(task.score_names)
    assert set(task.score_titles) < set(task.score_names)
    assert task.best_score in task.score_names
    logged = task.validation_scalars(predictions, task.metrics(predictions))
    assert logged["validation/loss"] > 0
    assert set(logged) <= {"validation/loss", *(f"validation/{name}" for name in scores)}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_figures_have_captions_and_the_first_needs_no_intervals(name):
    task, predictions = get_task(name), PREDICTIONS[name]()
    figures = task.figures(predictions, task.metrics(predictions), {}, "title")
    assert set(figures) <= set(task.captions) <= set(report_files())
    assert next(iter(figures.values()))().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["classification", "flood"])
def test_losses_take_labels_of_any_shape(name):
    """The loss of records of 4 x 5 pixels is the mean of the losses of the pixels."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 4, 5, 2)).astype(np.float32)
    shape = logits.shape if name == "classification" else logits.shape[:-1]
    labels = rng.integers(0, 2, shape)
    task = get_task(name)
    pixels = task.loss(logits.reshape(60, 2), labels.reshape(60, *labels.shape[3:]))
    expected = np.asarray(pixels).reshape(3, 20).mean(1)
    np.testing.assert_allclose(task.loss(logits, labels), expected, rtol=1e-5)
