"""The logistic baseline: statistics against NumPy, the fit against its optimality condition."""

import warnings

import numpy as np
import pytest

from sar_mixmae_jax.experiments import classical_baselines
from sar_mixmae_jax.experiments.classical_baselines import (
    COLUMNS,
    PERCENTILES,
    band_statistics,
    change_statistics,
)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    images = np.random.default_rng(0).normal(-15, 5, (6, 9, 7, 2)).astype(np.float32)
    images[1, :4] = np.nan
    images[2, 3, 2, 0] = -np.inf
    images[3, ..., 1] = np.nan  # a band that was not measured
    images[4] = np.nan
    images[4, 5, 5] = -3.0  # one pixel
    images[5] = np.nan
    return images


def test_statistics_are_those_of_the_valid_pixels(images):
    found = band_statistics(images).reshape(6, 2, len(COLUMNS))
    for image in range(6):
        for band in range(2):
            pixels = images[image, ..., band]
            pixels = pixels[np.isfinite(pixels)].astype(float)
            expected = np.zeros(len(COLUMNS))
            if pixels.size:
                expected = [pixels.mean(), pixels.std(), *np.percentile(pixels, PERCENTILES), 1]
            np.testing.assert_allclose(found[image, band], expected, rtol=1e-5, atol=1e-5)
    assert found.dtype == np.float32


def test_change_is_of_pixels_that_both_dates_measured(images):
    before, after = images[:2], images[1::-1]
    found = change_statistics(before, after).reshape(2, 3, 2, len(COLUMNS))
    np.testing.assert_array_equal(found[:, 0], band_statistics(before).reshape(2, 2, -1))
    np.testing.assert_array_equal(found[:, 1], band_statistics(after).reshape(2, 2, -1))
    difference = (after - before)[:, 4:]  # rows that image 1 lacks are left out of both
    np.testing.assert_allclose(found[..., 0][:, 2], difference.mean((1, 2)), atol=1e-5)
    np.testing.assert_allclose(found[..., 4][:, 2], np.median(difference, (1, 2)), atol=1e-5)


def labelled(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The first class shows in the mean of a band; the second is in no image, the third in all."""
    rng = np.random.default_rng(seed)
    labels = np.stack([rng.integers(0, 2, count), np.zeros(count), np.ones(count)], 1).astype(int)
    images = rng.normal(-15, 3, (count, 8, 8, 2)) - 2 * labels[:, 0, None, None, None] * [1, 0]
    return band_statistics(images.astype(np.float32)), labels


def test_regression_learns_a_class_and_predicts_the_prevalence_of_constant_ones():
    train, validation, test = (labelled(count, seed) for seed, count in enumerate((200, 60, 60)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = classical_baselines.fit_logistic(*train, *validation)
        logits = classical_baselines.predict_logistic(model, test[0])
    assert logits.shape == (60, 3)
    assert logits.dtype == np.float32
    assert ((logits[:, 0] > 0) == test[1][:, 0]).mean() > 0.95
    assert model.constant == (1, 2)
    np.testing.assert_allclose(logits[:, 1], np.log(0.5 / 200.5), rtol=1e-6)
    np.testing.assert_allclose(logits[:, 2], np.log(200.5 / 0.5), rtol=1e-6)
    assert model.validation is not None
    assert model.validation > 0.95


def test_logits_have_the_zero_gradient_of_the_penalised_likelihood():
    """At the optimum C * sum of (p - y) x + w = 0, and the mean probability is the prevalence."""
    features, labels = labelled(200, 0)
    model = classical_baselines.fit_logistic(features, labels, *labelled(60, 1))
    columns = features.reshape(200, 2, -1)[..., :-1].reshape(200, -1).astype(float)
    inputs = (columns - columns.mean(0)) / columns.std(0)
    residual = (
        1 / (1 + np.exp(-classical_baselines.predict_logistic(model, features)[:, 0]))
        - labels[:, 0]
    )
    gradient = model.regularisation * inputs.T @ residual + model.weights[:, 0]
    np.testing.assert_allclose(gradient, 0, atol=1e-2)
    assert residual.sum() == pytest.approx(0, abs=1e-3)


def test_the_regularisation_is_the_best_on_validation(monkeypatch):
    train, validation = labelled(40, 0), labelled(60, 1)
    chosen = classical_baselines.fit_logistic(*train, *validation)
    alone = {}
    for candidate in classical_baselines.REGULARISATIONS:
        monkeypatch.setattr(classical_baselines, "REGULARISATIONS", (candidate,))
        alone[candidate] = classical_baselines.fit_logistic(*train, *validation).validation
    assert chosen.validation == max(alone.values())
    assert chosen.regularisation == min(c for c, v in alone.items() if v == chosen.validation)


def test_an_unmeasured_band_counts_as_average():
    train, validation = labelled(100, 0), labelled(40, 1)
    model = classical_baselines.fit_logistic(*train, *validation)
    nothing = band_statistics(np.full((1, 4, 4, 2), np.nan))
    np.testing.assert_allclose(
        classical_baselines.predict_logistic(model, nothing)[0], model.intercept.astype(np.float32)
    )
    with_unmeasured = (np.concatenate([train[0], nothing]), np.append(train[1], [[0, 0, 1]], 0))
    again = classical_baselines.fit_logistic(*with_unmeasured, *validation)
    np.testing.assert_allclose(again.mean, model.mean)  # zeros of nothing are no measurements
    np.testing.assert_allclose(again.std, model.std)


def test_without_positives_in_validation_nothing_is_chosen():
    features, labels = labelled(40, 0)
    model = classical_baselines.fit_logistic(features, labels, features[:5], np.zeros((5, 3), int))
    assert model.validation is None
    assert model.regularisation == classical_baselines.DEFAULT_REGULARISATION
