"""Speckle filters against NumPy, on known textures, and aware of nodata."""

import jax
import numpy as np
import pytest
from scipy import ndimage

from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.speckle_filter import FILTERS, SpeckleFilter, reduce_speckle
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.utils.errors import InputError

LOOKS = 4.4
reduce = jax.jit(reduce_speckle, static_argnums=1)


def filtered(power: np.ndarray, name: str, window: int = 7, looks: float = LOOKS) -> np.ndarray:
    """Linear power of one filtered (row, column) image."""
    db = (10 * np.log10(power)).astype(np.float32)[None, :, :, None]
    settings = SpeckleFilter(name, window, looks)
    return 10 ** (np.asarray(reduce(db, settings), np.float64)[0, :, :, 0] / 10)


def speckled(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return 0.05 * np.random.default_rng(seed).gamma(LOOKS, 1 / LOOKS, shape)


def expected_value(values: np.ndarray, power: float, name: str, looks: float) -> float:
    """A pixel of the definitions, from the valid values of its window."""
    mean, variation = values.mean(), values.std() / values.mean()
    speckle = looks**-0.5
    if name == "boxcar":
        return mean
    if name == "lee":
        return mean + max(0.0, 1 - speckle**2 / variation**2) * (power - mean)
    if variation <= speckle:
        return mean
    if name == "enhanced_lee":
        most = np.sqrt(1 + 2 / looks)
        if variation >= most:
            return power
        share = np.exp(-(variation - speckle) / (most - variation))
        return mean * share + power * (1 - share)
    if variation >= np.sqrt(2) * speckle:
        return power
    alpha = (1 + speckle**2) / (variation**2 - speckle**2)
    b = alpha - looks - 1
    root = np.sqrt(b**2 * mean**2 + 4 * alpha * looks * power * mean)
    return (b * mean + root) / (2 * alpha)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_are_their_definitions_at_edges_and_beside_nodata(name):
    power = speckled((20, 24))
    power[4, 15] = 40.0  # a point target
    power[:, 12:] *= 8.0  # an edge
    power[8:11, 3:6] = np.nan
    expected = np.full_like(power, np.nan)
    for row, column in np.argwhere(np.isfinite(power)):
        part = power[max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3]
        values = part[np.isfinite(part)]
        expected[row, column] = expected_value(values, power[row, column], name, LOOKS)
    np.testing.assert_allclose(filtered(power, name, window=5), expected, rtol=2e-3)


@pytest.mark.parametrize(("name", "least"), [("boxcar", 0.9), ("lee", 0.5), ("gamma_map", 0.45)])
def test_the_number_of_looks_rises_on_a_constant_area(name, least):
    """To that of the average of 49 independent pixels for the boxcar, less for the others."""
    inside = filtered(speckled((256, 256)), name)[8:-8, 8:-8]
    looks = inside.mean() ** 2 / inside.var()
    assert least * 49 * LOOKS < looks < 1.1 * 49 * LOOKS
    assert inside.mean() == pytest.approx(0.05, rel=0.02)


def test_a_point_target_stays_with_adaptive_filters():
    power = speckled((33, 33))
    power[16, 16] = 100.0
    kept = {name: filtered(power, name)[16, 16] for name in FILTERS}
    assert kept["boxcar"] < 3.0
    assert min(kept["lee"], kept["enhanced_lee"], kept["gamma_map"]) > 95.0


def test_the_boxcar_is_that_of_scipy():
    power = speckled((32, 32))
    expected = ndimage.uniform_filter(power, 7, mode="constant")[3:-3, 3:-3]
    np.testing.assert_allclose(filtered(power, "boxcar")[3:-3, 3:-3], expected, rtol=1e-4)


def test_targets_inputs_and_weights_are_filtered_as_asked():
    db = (10 * np.log10(speckled((32, 32)))).astype(np.float32)[None, :, :, None]
    db[0, :4] = np.nan
    smooth = np.asarray(reduce(db, SpeckleFilter("lee")))

    def prepared(**settings):
        speckle = SpeckleFilter("lee", **settings)
        weighting = Weighting("per_channel", "physical")
        return preprocess(
            db,
            jax.random.key(0),
            Preprocessing(32, (-13.0,), (2.0,), weighting, random_flip=False, speckle=speckle),
        )

    plain, both, weighted, alone = (
        prepared(),
        prepared(apply_to="input_and_target"),
        prepared(weights=True),
        prepared(apply_to="weights"),
    )
    raw, filtered_images = (np.nan_to_num((image + 13.0) / 2.0) for image in (db, smooth))
    np.testing.assert_allclose(plain.images, raw, atol=1e-5)
    for batch in (plain, both, weighted):
        np.testing.assert_allclose(batch.target, filtered_images, atol=1e-4)
    np.testing.assert_array_equal(both.images, both.target)
    np.testing.assert_array_equal(alone.weights, weighted.weights)
    np.testing.assert_array_equal(alone.target, plain.images)
    np.testing.assert_array_equal(alone.images, plain.images)
    np.testing.assert_array_equal(both.weights, plain.weights)
    assert np.std(weighted.weights[0, 8:]) < 0.8 * np.std(plain.weights[0, 8:])
    assert not np.asarray(weighted.weights)[0, :4].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"filter": "leee"}, "unknown speckle.filter 'leee': did you mean 'lee'"),
        ({"window": 4}, "speckle.window is 4: expected an odd number of pixels from 3 to 31"),
        ({"looks": 0.0}, "speckle.looks is 0.0: expected a number above 0"),
        ({"apply_to": "input"}, "unknown speckle.apply_to 'input'"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(InputError, match=message):
        SpeckleFilter(**settings)
