"""Loss weights against NumPy, their physics, and nodata."""

import jax
import numpy as np
import pytest

from sar_mixmae_jax.objectives.weighting import WEIGHTINGS, Weighting, loss_weights
from sar_mixmae_jax.utils.errors import InputError

weigh = jax.jit(loss_weights, static_argnums=3)


@pytest.fixture
def db() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 5, (2, 16, 16, 2)).astype(np.float32)


def weights(db: np.ndarray, **settings) -> np.ndarray:
    standardised = (np.nan_to_num(db, nan=-15) + 15) / 5
    weighting = Weighting(**{"domain": "physical", **settings})
    return np.asarray(weigh(db, standardised, np.isfinite(db), weighting))


def unit_range(values: np.ndarray) -> np.ndarray:
    low, high = np.nanmin(values, (1, 2), keepdims=True), np.nanmax(values, (1, 2), keepdims=True)
    return (values - low) / (high - low + 1e-6)


def test_per_channel_is_the_formula(db):
    np.testing.assert_allclose(
        weights(db, scale=1.5), np.exp(1.5 * (1 - unit_range(10 ** (db / 10)))), rtol=1e-5
    )


def test_shared_average_is_the_formula(db):
    mean = (10 ** (db / 10)).mean(-1, keepdims=True)
    expected = np.broadcast_to(np.exp(1 - unit_range(mean)), db.shape)
    np.testing.assert_allclose(weights(db, name="shared_average"), expected, rtol=1e-5)


def test_standardised_domain_takes_power_of_the_standardised_image(db):
    expected = np.exp(1 - unit_range(10 ** ((db + 15) / 5 / 10)))
    np.testing.assert_allclose(weights(db, domain="standardised"), expected, rtol=1e-5)


def test_clip_in_db_is_the_formula(db):
    low, high = np.percentile(db, (1, 99), axis=(1, 2), keepdims=True)
    expected = np.exp(1 - unit_range(np.clip(db, low, high)))
    np.testing.assert_allclose(
        weights(db, power_domain="db", clip=(1.0, 99.0)), expected, rtol=1e-4
    )


def test_smooth_is_a_moving_average_of_power(db):
    db[0, 4:7, 5:9] = np.nan  # does not enter the average
    power = 10 ** (db.astype(np.float64) / 10)
    expected = np.full_like(power, np.nan)
    for image, row, column, band in np.argwhere(np.isfinite(power)):
        rows, columns = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
        expected[image, row, column, band] = np.nanmean(power[image, rows, columns, band])
    weight = np.nan_to_num(np.exp(1 - unit_range(expected)))
    np.testing.assert_allclose(weights(db, smooth=3), weight, rtol=1e-5)


def test_water_counts_more_than_buildings():
    db = np.full((1, 8, 8, 2), -12.0, np.float32)
    db[0, :4] = (-28.0, -21.0)  # calm water
    db[0, 7, 7] = 10.0  # a point target
    for name in ("per_channel", "shared_average"):
        w = weights(db, name=name)
        assert (w[0, 0, 0] > w[0, 6, 0]).all()
        np.testing.assert_allclose(w[0, 0, 0], np.e, rtol=1e-4)
        np.testing.assert_allclose(w[0, 7, 7], 1.0, rtol=1e-4)
    assert (weights(db, scale=-1.0)[0, 0, 0] < weights(db, scale=-1.0)[0, 7, 7]).all()


@pytest.mark.parametrize("name", sorted(WEIGHTINGS))
@pytest.mark.parametrize(
    "settings", [{}, {"clip": (1.0, 99.0)}, {"smooth": 3}, {"power_domain": "db", "smooth": 3}]
)
def test_nodata_weighs_nothing_and_changes_nothing(db, name, settings):
    """The weights of the rest are those of an image that ends there."""
    db[:, :3] = np.nan
    w = weights(db, name=name, **settings)
    assert (w[:, :3] == 0).all()
    np.testing.assert_allclose(w[:, 3:], weights(db[:, 3:], name=name, **settings), rtol=1e-5)


@pytest.mark.parametrize("power_domain", ["linear", "db"])
def test_shared_average_where_a_band_is_missing(db, power_domain):
    """Range over complete pixels; the others by the band they have, within the range."""
    db[0, :2, :, 0] = np.nan
    db[0, 0, 0, 1] = 30.0  # brighter than anything complete
    w = weights(db, name="shared_average", power_domain=power_domain)
    assert (w[0, :2, :, 0] == 0).all()
    assert w[0, 0, 0, 1] == pytest.approx(1.0)
    complete = weights(db[:, 2:], name="shared_average", power_domain=power_domain)
    np.testing.assert_allclose(w[0, 2:], complete[0], rtol=1e-5)


def test_a_pixel_without_vh_counts_as_brighter_and_one_without_vv_as_darker(db):
    """VV is 7 dB above VH: 2 dB above the mean power of both, and VH 5 dB below it."""
    db[:] = -18.0, -11.0
    db[:, 0, 0], db[:, 0, 1] = (-30.0, -25.0), (-8.0, -5.0)
    db[0, 5, 5, 0] = db[1, 5, 5, 1] = np.nan
    w = weights(db, name="shared_average")
    mean, dark, bright = (
        np.mean(10 ** (np.array(x) / 10)) for x in ((-18, -11), (-30, -25), (-8, -5))
    )
    alone = [np.exp(1 - (10 ** (x / 10) - dark) / (bright - dark + 1e-6)) for x in (-11, -18)]
    complete = np.exp(1 - (mean - dark) / (bright - dark + 1e-6))
    np.testing.assert_allclose(w[:, 9, 9], complete, rtol=1e-4)
    np.testing.assert_allclose((w[0, 5, 5, 1], w[1, 5, 5, 0]), alone, rtol=1e-4)
    assert alone[0] < complete < alone[1]


def test_shared_average_where_no_pixel_has_all_bands_is_that_of_the_band_there_is(db):
    """An image whose VH is all nodata weighs as an image of VV alone."""
    db[0, ..., 0] = np.nan
    w = weights(db, name="shared_average")
    assert (w[0, ..., 0] == 0).all()
    expected = np.exp(1 - unit_range(10 ** (db[:1, ..., 1:] / 10)))
    np.testing.assert_allclose(w[:1, ..., 1:], expected, rtol=1e-5)


@pytest.mark.parametrize("name", ["per_channel", "shared_average"])
def test_one_band_has_the_same_weights_in_both_forms(db, name):
    expected = np.exp(1 - unit_range(10 ** (db[..., :1] / 10)))
    np.testing.assert_allclose(weights(db[..., :1], name=name), expected, rtol=1e-5)


def test_shared_average_in_db_is_the_db_of_the_mean_power(db):
    mean = 10 * np.log10((10 ** (db.astype(np.float64) / 10)).mean(-1, keepdims=True))
    expected = np.broadcast_to(np.exp(1 - unit_range(mean)), db.shape)
    ours = weights(db, name="shared_average", power_domain="db")
    np.testing.assert_allclose(ours, expected, rtol=1e-4)


def test_all_nodata_gives_zeros(db):
    for name in WEIGHTINGS:
        for settings in ({}, {"clip": (1.0, 99.0)}, {"normalise": "mean"}):
            assert (weights(np.full_like(db, np.nan), name=name, **settings) == 0).all()


def test_normalised_weights_have_mean_one_over_valid_pixels(db):
    db[:, :3] = np.nan
    w = weights(db, normalise="mean")
    np.testing.assert_allclose(w[:, 3:].mean((1, 2)), 1.0, rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": float("nan")}, "scale is nan: expected a number between -10 and 10"),
        ({"scale": -10.5}, "scale is -10.5: expected a number between -10 and 10"),
        ({"name": "per_chanel"}, "unknown weighting 'per_chanel': did you mean 'per_channel'"),
        ({"domain": "linear"}, "unknown weighting domain 'linear'"),
        ({"power_domain": "watt"}, "unknown weighting power_domain 'watt'"),
        ({"normalise": "sum"}, "unknown weighting normalise 'sum'"),
        ({"smooth": 4}, "smooth is 4: expected an odd number"),
        ({"clip": (99.0, 1.0)}, "expected percentiles"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Weighting(**settings)
