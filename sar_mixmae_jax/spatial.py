"""Bringing patches to the model's input size, and flipping them: geometry, no radiometry.

Images are (batch, height, width, band); nodata is not finite and never bleeds into measurements.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.radiometry import valid_pixels


def resize(db: jax.Array, size: int) -> jax.Array:
    """Bilinear resizing with half-pixel centres, in dB as the published code does it.

    Measurements and their validity are resized alike and divided, so that nodata pulls nothing
    towards itself; a pixel is kept where at least half of its support is valid.
    Upsampling 120 to 128 px leaves a ripple of period 16 px in the noise variance; `pad` does not.
    Shrinking averages over what a new pixel covers.
    """
    if db.shape[1:3] == (size, size):
        return db
    shape = (db.shape[0], size, size, db.shape[3])
    valid = valid_pixels(db)
    values = jax.image.resize(jnp.where(valid, db, 0.0), shape, method="linear")
    support = jax.image.resize(valid.astype(db.dtype), shape, method="linear")
    return jnp.where(support >= 0.5, values / jnp.maximum(support, 0.5), jnp.nan)


def pad(db: jax.Array, size: int) -> jax.Array:
    """Surrounds the patch with nodata up to `size`, pixels untouched.

    Raises:
      InputError: the patch is larger than `size`.
    """
    height, width = db.shape[1:3]
    if height > size or width > size:
        raise InputError(
            f"cannot pad patches of {height}x{width} px to {size} px: choose fit=resize or a "
            "larger image_size"
        )
    top, left = (size - height) // 2, (size - width) // 2
    margins = ((0, 0), (top, size - height - top), (left, size - width - left), (0, 0))
    return jnp.pad(db, margins, constant_values=jnp.nan)


FITS: dict[str, Callable[[jax.Array, int], jax.Array]] = {"resize": resize, "pad": pad}
"""The ways to bring a patch to the model's input size, by name."""


def random_flips(images: jax.Array, key: jax.Array) -> jax.Array:
    """Flips each image left-right and up-down, each with probability one half."""
    left_right, up_down = jax.random.bernoulli(key, shape=(2, images.shape[0], 1, 1, 1))
    images = jnp.where(left_right, images[:, :, ::-1], images)
    return jnp.where(up_down, images[:, ::-1], images)
