"""The device's share of the data path: order of operations, and nodata all the way."""

import dataclasses

import jax
import numpy as np
import pytest

from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.utils.errors import InputError

SETTINGS = Preprocessing(
    image_size=16,
    mean=(-19.0, -12.0),
    std=(3.0, 4.0),
    weighting=Weighting(domain="physical"),
    random_flip=False,
)
prepare = jax.jit(preprocess, static_argnums=2)


@pytest.fixture
def db() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 5, (2, 16, 16, 2)).astype(np.float32)


def test_images_are_standardised_and_weights_are_of_the_measured_power(db):
    batch = prepare(db, jax.random.key(0), SETTINGS)
    np.testing.assert_allclose(batch.images, (db - [-19, -12]) / [3, 4], atol=1e-5)
    power = 10 ** (db.astype(np.float64) / 10)
    low, high = power.min((1, 2), keepdims=True), power.max((1, 2), keepdims=True)
    expected = np.exp(1 - (power - low) / (high - low + 1e-6))
    np.testing.assert_allclose(batch.weights, expected, rtol=1e-4)
    assert np.asarray(batch.valid).all()


def test_nodata_is_the_mean_and_weighs_nothing(db):
    db[:, :5] = np.nan
    batch = prepare(db, jax.random.key(0), SETTINGS)
    for array in (batch.images, batch.weights, batch.valid):
        assert (np.asarray(array)[:, :5] == 0).all()
    assert np.asarray(batch.valid)[:, 5:].all()


def test_weights_and_images_are_flipped_together(db):
    flipping = dataclasses.replace(SETTINGS, random_flip=True)
    plain = prepare(db, jax.random.key(0), SETTINGS)
    for seed in range(4):
        flipped = prepare(db, jax.random.key(seed), flipping)
        for image in range(2):
            axes = [
                axes
                for axes in ((), (0,), (1,), (0, 1))
                if np.array_equal(np.flip(plain.images[image], axes), flipped.images[image])
            ]
            assert len(axes) == 1
            np.testing.assert_allclose(
                np.flip(plain.weights[image], axes[0]), flipped.weights[image], rtol=1e-5
            )


def test_padding_is_nodata(db):
    batch = prepare(
        db, jax.random.key(0), dataclasses.replace(SETTINGS, image_size=20, resize_mode="pad")
    )
    assert np.asarray(batch.valid).sum() == db.size
    assert (np.asarray(batch.weights)[:, :2] == 0).all()


def test_unknown_resize_mode():
    with pytest.raises(InputError, match="unknown resize_mode 'crop': known are pad, resize"):
        dataclasses.replace(SETTINGS, resize_mode="crop")
