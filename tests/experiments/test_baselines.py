"""Baselines without a network: statistics against NumPy, Otsu against trying every threshold."""

import warnings

import numpy as np
import pytest

from sar_mixmae_jax.experiments import baselines, otsu_baseline
from sar_mixmae_jax.experiments.baselines import (
    COLUMNS,
    PERCENTILES,
    band_statistics,
    change_statistics,
)
from sar_mixmae_jax.utils.errors import InputError


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


def test_regression_learns_a_class_and_knows_nothing_of_others():
    train, validation, test = (labelled(count, seed) for seed, count in enumerate((200, 60, 60)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = baselines.fit_logistic(*train, *validation)
        logits = baselines.predict_logistic(model, test[0])
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
    model = baselines.fit_logistic(features, labels, *labelled(60, 1))
    columns = features.reshape(200, 2, -1)[..., :-1].reshape(200, -1).astype(float)
    inputs = (columns - columns.mean(0)) / columns.std(0)
    residual = 1 / (1 + np.exp(-baselines.predict_logistic(model, features)[:, 0])) - labels[:, 0]
    gradient = model.regularisation * inputs.T @ residual + model.weights[:, 0]
    np.testing.assert_allclose(gradient, 0, atol=1e-2)
    assert residual.sum() == pytest.approx(0, abs=1e-3)


def test_the_regularisation_is_the_best_on_validation(monkeypatch):
    train, validation = labelled(40, 0), labelled(60, 1)
    chosen = baselines.fit_logistic(*train, *validation)
    alone = {}
    for one in baselines.REGULARISATIONS:
        monkeypatch.setattr(baselines, "REGULARISATIONS", (one,))
        alone[one] = baselines.fit_logistic(*train, *validation).validation
    assert chosen.validation == max(alone.values())
    assert chosen.regularisation == min(c for c, v in alone.items() if v == chosen.validation)


def test_an_unmeasured_band_counts_as_average():
    train, validation = labelled(100, 0), labelled(40, 1)
    model = baselines.fit_logistic(*train, *validation)
    nothing = band_statistics(np.full((1, 4, 4, 2), np.nan))
    np.testing.assert_allclose(
        baselines.predict_logistic(model, nothing)[0], model.intercept.astype(np.float32)
    )
    with_unmeasured = (np.concatenate([train[0], nothing]), np.append(train[1], [[0, 0, 1]], 0))
    again = baselines.fit_logistic(*with_unmeasured, *validation)
    np.testing.assert_allclose(again.mean, model.mean)  # zeros of nothing are no measurements
    np.testing.assert_allclose(again.std, model.std)


def test_without_positives_in_validation_nothing_is_chosen():
    features, labels = labelled(40, 0)
    model = baselines.fit_logistic(features, labels, features[:5], np.zeros((5, 3), int))
    assert model.validation is None
    assert model.regularisation == baselines.UNCHOSEN


def test_the_logit_of_a_flood_is_against_zero():
    logits = otsu_baseline.two_classes(np.array([[-1.5], [2.0]]))
    np.testing.assert_array_equal(logits, np.array([[0, -1.5], [0, 2.0]], np.float32))
    assert logits.dtype == np.float32


def variance_between(counts: np.ndarray, cut: int) -> float:
    """Of values written out one by one."""
    values = np.repeat((otsu_baseline.EDGES[1:] + otsu_baseline.EDGES[:-1]) / 2, counts)
    place = np.repeat(np.arange(len(counts)), counts)
    low, high = values[place < cut], values[place >= cut]
    if not len(low) or not len(high):
        return 0.0
    weights = len(low) / len(values), len(high) / len(values)
    return weights[0] * weights[1] * (low.mean() - high.mean()) ** 2


def test_otsu_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-14, 2, 300), rng.normal(-4, 1.5, 900)])
    counts = np.histogram(values, otsu_baseline.EDGES)[0]
    between = [variance_between(counts, cut) for cut in range(1, len(counts))]
    found = otsu_baseline.otsu(counts)
    assert between[np.argmin(np.abs(otsu_baseline.EDGES[1:-1] - found))] == pytest.approx(
        max(between)
    )
    assert -11 < found < -7


def test_otsu_cuts_midway_between_two_spikes():
    counts = np.zeros(300, int)
    counts[[50, 150]] = 10, 3  # -25 dB and -15 dB
    assert otsu_baseline.otsu(counts) == pytest.approx(-20, abs=0.11)
    with pytest.raises(InputError, match="no pixel of a flooded training pair"):
        otsu_baseline.otsu(np.zeros(300, int))


def pairs(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Half of the pairs flood a stripe, which falls from -14 to -24 dB under speckle."""
    rng = np.random.default_rng(seed)
    flooded = np.arange(count) % 2
    mean = np.full((2, count, 32, 32, 2), -14.0)
    mean[1, flooded == 1, :, 8:16] = -24.0
    mean[:, :, 25:] = -24.0  # a lake on both dates
    speckle = 10 * np.log10(rng.gamma(4.4, 1 / 4.4, mean.shape))
    before, after = (mean + speckle).astype(np.float32)
    before[:, :2] = np.nan
    return before, after, flooded


@pytest.fixture(scope="module")
def fitted():
    train, validation = pairs(12, 0), pairs(8, 1)
    wet = train[2] == 1
    threshold = otsu_baseline.otsu(otsu_baseline.histogram(train[0][wet], train[1][wet]))
    shares = [otsu_baseline.new_water(*split[:2], threshold) for split in (train, validation)]
    return otsu_baseline.fit_otsu(threshold, shares[0], train[2], shares[1], validation[2]), shares[
        0
    ]


def test_new_water_is_found_and_old_water_is_not(fitted):
    model, share = fitted
    assert -9 < model.threshold < -2
    # Smoothing mixes the columns at the edge with the bright field: (2 · -14 + 3 · -24 dB) / 5 in
    # power is -17.4 dB, not water; one further in it is -20. Of 30 rows that both dates measured.
    np.testing.assert_allclose(share[1::2], (8 - 2) * 23 / (30 * 32), atol=0.01)
    np.testing.assert_allclose(share[::2], 0.0, atol=0.01)
    before, after, labels = pairs(10, 2)
    logits = otsu_baseline.predict_otsu(
        model, otsu_baseline.new_water(before, after, model.threshold)
    )
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_array_equal(logits[:, 1] > 0, labels == 1)


def test_histograms_add_up(fitted):
    before, after, _ = pairs(4, 3)
    parts = [otsu_baseline.histogram(before[[one]], after[[one]]) for one in range(4)]
    np.testing.assert_array_equal(sum(parts), otsu_baseline.histogram(before, after))
    assert sum(parts).sum() == 4 * 30 * 32
    assert sum(parts)[-1] > 1000  # what did not darken


def test_smoothing_is_the_mean_power_of_valid_neighbours():
    before, _, _ = pairs(2, 4)
    before[0, 10, 10, 1] = np.nan
    level = otsu_baseline._level(before)
    reach = otsu_baseline.WINDOW // 2
    for row, column in ((2, 0), (9, 11), (20, 31), (31, 31)):
        window = before[
            0,
            max(row - reach, 0) : row + reach + 1,
            max(column - reach, 0) : column + reach + 1,
        ]
        expected = 10 * np.log10(np.nanmean(10 ** (window.astype(float) / 10), (0, 1))).mean()
        assert level[0, row, column] == pytest.approx(expected, abs=1e-5)
    assert np.isnan(level[0, 10, 10])
    assert np.isnan(level[:, :2]).all()


def test_a_pair_that_was_not_measured_shows_no_flood(fitted):
    nothing = np.full((1, 32, 32, 2), np.nan, np.float32)
    share = otsu_baseline.new_water(nothing, nothing, -5.0)
    assert share.tolist() == [0.0]
    assert otsu_baseline.predict_otsu(fitted[0], share)[0, 1] < 0


def best_f1(share: np.ndarray, flooded: np.ndarray) -> float:
    """Over every cut between two shares."""
    scores = [0.0]
    for cut in share:
        alarm = share >= cut
        scores.append(2 * (alarm & flooded).sum() / (alarm.sum() + flooded.sum()))
    return max(scores)


def test_the_level_has_the_best_f1_on_validation():
    rng = np.random.default_rng(5)
    for _ in range(20):
        flooded = rng.random(30) < 0.4
        share = np.round(np.clip(rng.normal(0.1 + 0.05 * flooded, 0.05), 0, 1), 2)
        model = otsu_baseline.fit_otsu(-3.0, share, flooded, share, flooded)
        alarm = otsu_baseline.predict_otsu(model, share)[:, 1] > 0
        f1 = 2 * (alarm & flooded).sum() / (alarm.sum() + flooded.sum())
        assert f1 == pytest.approx(best_f1(share, flooded))
        assert model.slope > 0


def test_splits_of_one_answer_are_answered():
    share = np.array([0.0, 0.2, 0.2, 0.5])
    always = otsu_baseline.fit_otsu(-3.0, share, np.ones(4), share, np.ones(4))
    assert (otsu_baseline.predict_otsu(always, share)[:, 1] > 0).all()
    never = otsu_baseline.fit_otsu(-3.0, share, np.zeros(4), share, np.zeros(4))
    assert (otsu_baseline.predict_otsu(never, share)[:, 1] < 0).all()
