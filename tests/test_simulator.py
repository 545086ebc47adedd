"""The simulator against the measured ranges of real patches."""

import numpy as np
import pytest

from tfds_builders.synthetic_s1 import simulator
from tfds_builders.synthetic_s1.simulator import CLASSES, simulate
from tfds_builders.synthetic_s1.synthetic_s1_dataset_builder import MEAN, STD


@pytest.fixture(scope="module")
def patches():
    return [simulate(120, (0, number)) for number in range(100)]


def test_a_seed_is_a_patch():
    for ours, again in zip(simulate(64, (5, 1)), simulate(64, (5, 1)), strict=True):
        np.testing.assert_array_equal(ours, again)
    assert (simulate(64, (5, 1))[0] != simulate(64, (5, 2))[0]).any()


def test_speckle_has_the_looks_and_the_correlation_of_real_products():
    """Measured on real patches: ENL 6 to 9 in calm windows, lag-1 .63 to .71, lag-2 .12 to .25."""
    rng = np.random.default_rng(0)
    speckle = np.stack([simulator._speckle(rng, 120) for _ in range(10)]).astype(np.float64)
    assert speckle.mean() == pytest.approx(1.0, abs=0.02)
    assert 6 <= speckle.mean() ** 2 / speckle.var() <= 9
    deviation = speckle - speckle.mean()
    for lag, low, high in ((1, 0.63, 0.71), (2, 0.12, 0.25)):
        for one, other in (
            (deviation[:, lag:], deviation[:, :-lag]),
            (deviation[..., lag:], deviation[..., :-lag]),
        ):
            assert low <= (one * other).mean() / speckle.var() <= high


def test_speckle_is_independent_between_bands(patches):
    """Measured: correlation .01 to .14 once the scene is taken out."""
    ratios = [patch.backscatter - patch.noise_free for patch in patches[:40]]
    inside = [ratio[np.isfinite(ratio).all(-1)] for ratio in ratios]
    correlations = [np.corrcoef(ratio.T)[0, 1] for ratio in inside]
    assert abs(np.median(correlations)) < 0.1


def test_speckle_and_noise_leave_power_unbiased_on_land(patches):
    """Noise is added before the speckle and subtracted after it: the mean power stays."""
    truth = np.stack([patch.noise_free for patch in patches]).astype(np.float64)
    seen = np.stack([patch.backscatter for patch in patches]).astype(np.float64)
    land = (truth > -20) & (truth < 0)
    ratio = (10 ** (seen[land] / 10)).mean() / (10 ** (truth[land] / 10)).mean()
    assert ratio == pytest.approx(1.0, abs=0.02)


def test_borders_are_nodata_in_both_bands_and_in_the_truth(patches):
    shares = []
    for patch in patches:
        nodata = np.isnan(patch.backscatter)
        np.testing.assert_array_equal(nodata[..., 0], nodata[..., 1])
        np.testing.assert_array_equal(nodata, np.isnan(patch.noise_free))
        shares.append(nodata.mean())
    assert 0.02 < (np.array(shares) > 0).mean() < 0.25
    assert max(shares) < 0.6


def test_labels_name_what_is_there(patches):
    seen = {name for patch in patches for name in patch.classes}
    assert seen == set(CLASSES)
    assert all(patch.classes for patch in patches)


def test_statistics_in_the_metadata_are_those_of_the_patches(patches):
    values = np.stack([patch.backscatter for patch in patches]).astype(np.float64)
    np.testing.assert_allclose(np.nanmean(values, (0, 1, 2)), MEAN, atol=0.8)
    np.testing.assert_allclose(np.nanstd(values, (0, 1, 2)), STD, atol=0.6)
