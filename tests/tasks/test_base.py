"""Guarantees of the task interface that hold for every task."""

import numpy as np
import pytest

from sar_mixmae_jax.tasks.evaluation_report import report_files
from sar_mixmae_jax.tasks.registry import get_task, task_names
from tests.tasks.test_evaluation_report import classified, paired

PREDICTIONS = {"classification": classified, "flood": paired}


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
