"""Resizing, padding and flips: geometry that leaves measurements and nodata apart."""

import jax
import numpy as np
import pytest

from sar_mixmae_jax.objectives.preprocess import pad, random_flips, resize
from sar_mixmae_jax.utils.errors import InputError


def bilinear(image: np.ndarray, size: int) -> np.ndarray:
    """Half-pixel bilinear resizing with clamped edges, pixel by pixel."""
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


def test_pad_refuses_larger_patches(images):
    with pytest.raises(InputError, match="15x15 px to 8 px"):
        pad(images, 8)


def test_flips_are_all_four_and_independent_per_image():
    image = np.arange(4.0, dtype=np.float32).reshape(1, 2, 2, 1)
    images = np.repeat(image, 64, axis=0)
    flipped = np.asarray(jax.jit(random_flips)(images, jax.random.key(0)))
    seen = {tuple(np.ravel(one)) for one in flipped}
    assert seen == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}
