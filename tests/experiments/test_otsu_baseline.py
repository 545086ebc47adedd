"""The Otsu baseline: the threshold against trying every one, new water by hand."""

import numpy as np
import pytest

from sar_mixmae_jax.experiments import classical_baselines
from sar_mixmae_jax.utils.errors import InputError

WATER_DB = classical_baselines.water_level(("VH", "VV"))


def test_water_is_darker_than_the_mean_level_of_the_bands_that_there_are():
    """Between roughened water and bare soil, typical values of `docs/datasets.md`."""
    assert WATER_DB == -18.0
    for band, water, soil in (("VH", -26, -20.5), ("VV", -14.5, -12.7), ("HH", -18.7, -13.4)):
        assert water < classical_baselines.water_level((band,)) < soil
    with pytest.raises(InputError, match="unknown band 'X'"):
        classical_baselines.water_level(("VV", "X"))


def test_the_logit_of_a_flood_is_against_zero():
    logits = classical_baselines.two_class_logits(np.array([[-1.5], [2.0]]))
    np.testing.assert_array_equal(logits, np.array([[0, -1.5], [0, 2.0]], np.float32))
    assert logits.dtype == np.float32


def variance_between(counts: np.ndarray, cut: int) -> float:
    """Return the variance between the classes of a cut, from values written out one by one."""
    values = np.repeat((classical_baselines.EDGES[1:] + classical_baselines.EDGES[:-1]) / 2, counts)
    place = np.repeat(np.arange(len(counts)), counts)
    low, high = values[place < cut], values[place >= cut]
    if not len(low) or not len(high):
        return 0.0
    weights = len(low) / len(values), len(high) / len(values)
    return weights[0] * weights[1] * (low.mean() - high.mean()) ** 2


def test_otsu_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(-14, 2, 300), rng.normal(-4, 1.5, 900)])
    counts = np.histogram(values, classical_baselines.EDGES)[0]
    between = [variance_between(counts, cut) for cut in range(1, len(counts))]
    found = classical_baselines.otsu_threshold(counts)
    assert between[np.argmin(np.abs(classical_baselines.EDGES[1:-1] - found))] == pytest.approx(
        max(between)
    )
    assert -11 < found < -7


def test_otsu_cuts_midway_between_two_spikes():
    counts = np.zeros(300, int)
    counts[[50, 150]] = 10, 3  # -25 dB and -15 dB
    assert classical_baselines.otsu_threshold(counts) == pytest.approx(-20, abs=0.11)
    with pytest.raises(InputError, match="no flooded training pair with a pixel"):
        classical_baselines.otsu_threshold(np.zeros(300, int))


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
    threshold = classical_baselines.otsu_threshold(
        classical_baselines.log_ratio_histogram(train[0][wet], train[1][wet])
    )
    fractions = [
        classical_baselines.new_water_fraction(*split[:2], threshold, WATER_DB)
        for split in (train, validation)
    ]
    return classical_baselines.fit_otsu(
        threshold, fractions[0], train[2], fractions[1], validation[2]
    ), fractions[0]


def test_new_water_is_found_and_old_water_is_not(fitted):
    model, fraction = fitted
    assert -9 < model.threshold < -2
    # Smoothing mixes the columns at the edge with the bright field: (2 · -14 + 3 · -24 dB) / 5 in
    # power is -17.4 dB, not water; one further in it is -20. Of 30 rows that both dates measured.
    np.testing.assert_allclose(fraction[1::2], (8 - 2) * 23 / (30 * 32), atol=0.01)
    np.testing.assert_allclose(fraction[::2], 0.0, atol=0.01)
    before, after, labels = pairs(10, 2)
    logits = classical_baselines.predict_otsu(
        model, classical_baselines.new_water_fraction(before, after, model.threshold, WATER_DB)
    )
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits[:, 0], 0)
    np.testing.assert_array_equal(logits[:, 1] > 0, labels == 1)


def test_histograms_add_up(fitted):
    before, after, _ = pairs(4, 3)
    parts = [
        classical_baselines.log_ratio_histogram(before[[one]], after[[one]]) for one in range(4)
    ]
    np.testing.assert_array_equal(
        sum(parts), classical_baselines.log_ratio_histogram(before, after)
    )
    assert sum(parts).sum() == 4 * 30 * 32
    assert sum(parts)[-1] > 1000  # what did not darken


def test_smoothing_is_the_mean_power_of_valid_neighbours():
    before, _, _ = pairs(2, 4)
    before[0, 10, 10, 1] = np.nan
    level = classical_baselines._smoothed_db(before)
    reach = classical_baselines.WINDOW // 2
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
    fraction = classical_baselines.new_water_fraction(nothing, nothing, -5.0, WATER_DB)
    assert fraction.tolist() == [0.0]
    assert classical_baselines.predict_otsu(fitted[0], fraction)[0, 1] < 0


def best_f1(fraction: np.ndarray, flooded: np.ndarray) -> float:
    """Over every cut between two fractions."""
    scores = [0.0]
    for cut in fraction:
        alarm = fraction >= cut
        scores.append(2 * (alarm & flooded).sum() / (alarm.sum() + flooded.sum()))
    return max(scores)


def test_the_level_has_the_best_f1_on_validation():
    rng = np.random.default_rng(5)
    for _ in range(20):
        flooded = rng.random(30) < 0.4
        fraction = np.round(np.clip(rng.normal(0.1 + 0.05 * flooded, 0.05), 0, 1), 2)
        model = classical_baselines.fit_otsu(-3.0, fraction, flooded, fraction, flooded)
        alarm = classical_baselines.predict_otsu(model, fraction)[:, 1] > 0
        f1 = 2 * (alarm & flooded).sum() / (alarm.sum() + flooded.sum())
        assert f1 == pytest.approx(best_f1(fraction, flooded))
        assert model.slope > 0


def test_a_split_with_one_label_has_a_cut():
    fraction = np.array([0.0, 0.2, 0.2, 0.5])
    always = classical_baselines.fit_otsu(-3.0, fraction, np.ones(4), fraction, np.ones(4))
    assert (classical_baselines.predict_otsu(always, fraction)[:, 1] > 0).all()
    never = classical_baselines.fit_otsu(-3.0, fraction, np.zeros(4), fraction, np.zeros(4))
    assert (classical_baselines.predict_otsu(never, fraction)[:, 1] < 0).all()
