"""Preprocessing on the device: size, flips, the order of operations, and nodata throughout."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sar_mixmae_jax.objectives.preprocess import (
    Preprocessing,
    augment,
    pad,
    preprocess,
    random_flips,
    resize,
)
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


# ---- size and flips


def bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Resize bilinearly with half-pixel centres and clamped edges, pixel by pixel."""
    old = len(image)
    out = np.empty((size, size, image.shape[-1]))
    for row in range(size):
        for column in range(size):
            y, x = (np.clip((i + 0.5) * old / size - 0.5, 0, old - 1) for i in (row, column))
            top, left = int(y), int(x)
            bottom, right = min(top + 1, old - 1), min(left + 1, old - 1)
            fy, fx = y - top, x - left
            upper = image[top, left] * (1 - fx) + image[top, right] * fx
            lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
            out[row, column] = upper * (1 - fy) + lower * fy
    return out


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(-15, 5, (2, 15, 15, 2)).astype(np.float32)


def test_resize_is_bilinear_with_half_pixel_centres(images):
    ours = jax.jit(resize, static_argnums=1)(images, 16)
    np.testing.assert_allclose(ours, [bilinear(image, 16) for image in images], atol=1e-4)


def test_nodata_does_not_bleed_through_resizing():
    images = np.full((1, 15, 15, 2), -20.0, np.float32)
    images[0, :, 9:, 0] = np.nan
    resized = np.asarray(jax.jit(resize, static_argnums=1)(images, 16))
    valid = np.isfinite(resized)
    np.testing.assert_allclose(resized[valid], -20.0, atol=1e-4)  # neither zeros nor NaN mixed in
    assert valid[..., 1].all()  # the other band keeps its measurements
    assert valid[0, 0, :9, 0].all()
    assert not valid[0, 0, 10:, 0].any()


def test_pad_surrounds_with_nodata_and_moves_nothing(images):
    padded = np.asarray(pad(images, 19))
    np.testing.assert_array_equal(padded[:, 2:17, 2:17], images)
    assert np.isnan(padded).sum() == 2 * 2 * (19 * 19 - 15 * 15)


def test_pad_refuses_larger_images(images):
    with pytest.raises(InputError, match="15x15 px to 8 px"):
        pad(images, 8)


def test_flips_are_all_four_and_independent_per_image():
    image = np.arange(4.0, dtype=np.float32).reshape(1, 2, 2, 1)
    images = np.repeat(image, 64, axis=0)
    flipped = np.asarray(jax.jit(random_flips)(images, jax.random.key(0)))
    orders = {tuple(np.ravel(image)) for image in flipped}
    assert orders == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


def test_crops_and_rotations_move_images_and_labels_alike():
    """A record holds its own coordinates, 100 row + column; so do its labels."""
    places = 100 * np.arange(6)[:, None] + np.arange(9)
    records = np.broadcast_to(places[..., None], (40, 6, 9, 1))
    settings = Preprocessing(9, (0.0,), (1.0,), random_flip=True, random_rotation=True, crop_size=4)
    key = jax.random.key(5)
    images = np.asarray(augment(jnp.asarray(records, jnp.float32), key, settings))
    labels = np.asarray(augment(jnp.asarray(records), key, settings))
    np.testing.assert_array_equal(images, labels)
    assert images.shape == (40, 4, 4, 1)
    corners, turns = set(), set()
    for image in images[..., 0].astype(int):
        row, column = divmod(image.min(), 100)
        corners.add((row, column))
        window = places[row : row + 4, column : column + 4]
        forms = [np.rot90(flipped, k) for k in range(4) for flipped in (window, window[::-1])]
        (turn,) = (number for number, form in enumerate(forms) if np.array_equal(form, image))
        turns.add(turn)
    assert len(turns) == 8
    assert len(corners) > 10
    assert {row for row, _ in corners} == {0, 1, 2}
