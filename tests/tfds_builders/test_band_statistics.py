"""Streaming statistics against NumPy on all patches at once."""

import json

import numpy as np
import pytest

from tfds_builders.band_statistics import BandMoments


@pytest.fixture
def patches() -> np.ndarray:
    rng = np.random.default_rng(0)
    means = rng.normal(-15, 5, (20, 1, 1, 2))
    patches = rng.normal(means, 3.0, (20, 16, 16, 2))
    patches[3, :8] = np.nan
    patches[4, ..., 1] = np.nan  # a band without a measurement
    return patches


def test_they_are_those_of_all_pixels(patches):
    moments = sum(
        (BandMoments.from_patches(patch[None]) for patch in patches), BandMoments.zeros(2)
    )
    pixels = patches.reshape(-1, 2)
    np.testing.assert_allclose(moments.mean(), np.nanmean(pixels, 0))
    np.testing.assert_allclose(moments.global_std(), np.nanstd(pixels, 0))
    np.testing.assert_allclose(moments.nodata_fraction(), np.isnan(pixels).mean(0))
    at_once = BandMoments.from_patches(patches)
    np.testing.assert_allclose(at_once.global_std(), moments.global_std())
    with np.errstate(all="ignore"):
        each = np.array([[np.nanstd(p[..., band]) for band in (0, 1)] for p in patches[[0, 1, 2]]])
    three = BandMoments.from_patches(patches[:3])
    np.testing.assert_allclose(three.mean_patch_std(), each.mean(0))


def test_both_deviations_differ_and_keep_their_names(patches):
    described = BandMoments.from_patches(patches).describe()
    assert described["patches"] == 20
    for band in (0, 1):
        assert described["global_deviation"][band] > 1.3 * described["mean_patch_deviation"][band]


def test_the_way_to_json_is_exact(patches):
    moments = BandMoments.from_patches(patches[:1])
    again = BandMoments.from_json(json.loads(json.dumps(moments.to_json())))
    assert again.to_json() == moments.to_json()
