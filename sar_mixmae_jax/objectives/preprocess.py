"""Backscatter: dB and linear power, nodata, standardisation.

Everywhere in this project an image is an array (batch, height, width, band), bands in the order
the configuration names, backscatter in dB, and nodata is whatever is not finite (NaN in records).
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.objectives.radiometry import TO_DB, standardise, valid_pixels
from sar_mixmae_jax.objectives.weighting import Weighting, loss_weights
from sar_mixmae_jax.utils.errors import InputError, look_up


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
            f"cannot pad patches of {height}x{width} px to {size} px: choose resize_mode=resize or "
            "a larger image_size"
        )
    top, left = (size - height) // 2, (size - width) // 2
    margins = ((0, 0), (top, size - height - top), (left, size - width - left), (0, 0))
    return jnp.pad(db, margins, constant_values=jnp.nan)


RESIZE_MODES: dict[str, Callable[[jax.Array, int], jax.Array]] = {"resize": resize, "pad": pad}
"""The ways to bring a patch to the model's input size, by name."""


def random_flips(images: jax.Array, key: jax.Array) -> jax.Array:
    """Flips each image left-right and up-down, each with probability one half."""
    left_right, up_down = jax.random.bernoulli(key, shape=(2, images.shape[0], 1, 1, 1))
    images = jnp.where(left_right, images[:, :, ::-1], images)
    return jnp.where(up_down, images[:, ::-1], images)


NO_WEIGHTING = Weighting("none")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What happens to a batch on the device.

    Attributes:
      image_size: input side of the model in pixels.
      resize_mode: an entry of `spatial.FITS`: "resize" or "pad".
      random_flip: whether to flip at random.
      mean: mean of each band, dB.
      std: standard deviation of each band, dB.
      weighting: how the loss is weighted; of no meaning where nothing is reconstructed.
      unit: of the raw batch, an entry of `radiometry.TO_DB`.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weighting: Weighting = NO_WEIGHTING
    resize_mode: str = "resize"
    random_flip: bool = True
    unit: str = "dB"

    def __post_init__(self) -> None:
        look_up(RESIZE_MODES, self.resize_mode, "resize_mode")
        look_up(TO_DB, self.unit, "unit")


class PreparedBatch(NamedTuple):
    """A batch ready for the model; all arrays are (batch, height, width, band).

    Attributes:
      images: standardised, 0 at nodata.
      weights: of the loss, 0 at nodata.
      valid: True where measured.
    """

    images: jax.Array
    weights: jax.Array
    valid: jax.Array


def preprocess(raw: jax.Array, key: jax.Array, settings: Preprocessing) -> PreparedBatch:
    """Prepares a batch of raw backscatter.

    Args:
      raw: (batch, height, width, band) in `settings.unit`, float32 or float16, nodata not finite.
      key: for the flips.
      settings: what to do.
    """
    db = TO_DB[settings.unit](raw.astype(jnp.float32))
    db = RESIZE_MODES[settings.resize_mode](db, settings.image_size)
    if settings.random_flip:
        db = random_flips(db, key)
    valid = valid_pixels(db)
    images = standardise(db, jnp.array(settings.mean), jnp.array(settings.std))
    weights = loss_weights(db, images, valid, settings.weighting)
    return PreparedBatch(images, weights, valid)
