"""Preprocessing on the device: unit, speckle, size, flips, standardisation, loss weights.

For the conventions of images and nodata see `radiometry`.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.objectives.radiometry import TO_DB, standardise, valid_pixels
from sar_mixmae_jax.objectives.speckle_filter import NO_FILTER, SpeckleFilter, reduce_speckle
from sar_mixmae_jax.objectives.weighting import Weighting, loss_weights
from sar_mixmae_jax.utils.errors import InputError, look_up


def resize(db: jax.Array, size: int) -> jax.Array:
    """Resize bilinearly with half-pixel centres, in dB as in the published code.

    Values and validity are resized alike and divided, so that nodata does not bias its neighbours;
    a pixel is valid where at least half of its support is. Shrinking averages over the area of a
    new pixel. Upsampling from 120 to 128 px leaves a ripple of 16 px period in the noise variance,
    which `pad` avoids.

    Args:
      db: (batch, height, width, band), dB.
      size: new height and width, pixels.
    """
    if db.shape[1:3] == (size, size):
        return db
    shape = (db.shape[0], size, size, db.shape[3])
    valid = valid_pixels(db)
    values = jax.image.resize(jnp.where(valid, db, 0.0), shape, method="linear")
    support = jax.image.resize(valid.astype(db.dtype), shape, method="linear")
    return jnp.where(support >= 0.5, values / jnp.maximum(support, 0.5), jnp.nan)


def pad(db: jax.Array, size: int) -> jax.Array:
    """Surround images with nodata up to `size`; pixels are unchanged.

    Args:
      db: (batch, height, width, band), dB.
      size: new height and width, pixels.

    Raises:
      InputError: the images are larger than `size`.
    """
    height, width = db.shape[1:3]
    if height > size or width > size:
        raise InputError(
            f"cannot pad images of {height}x{width} px to {size} px: choose resize_mode=resize or "
            "a larger image_size"
        )
    top, left = (size - height) // 2, (size - width) // 2
    margins = ((0, 0), (top, size - height - top), (left, size - width - left), (0, 0))
    return jnp.pad(db, margins, constant_values=jnp.nan)


RESIZE_MODES: dict[str, Callable[[jax.Array, int], jax.Array]] = {"resize": resize, "pad": pad}
"""Functions that convert images to the input size of the model."""


def resize_labels(labels: jax.Array, size: int, resize_mode: str) -> jax.Array:
    """Resize or pad labels per pixel like the images.

    Args:
      labels: (batch, height, width) index of a class.
      size: new height and width, pixels.
      resize_mode: "resize" takes the nearest pixel; "pad" surrounds labels with `NOT_LABELLED`.

    Returns:
      (batch, size, size) int32.

    Raises:
      InputError: labels to pad are larger than `size`.
    """
    if resize_mode == "pad":
        padded = pad(labels[..., None].astype(jnp.float32), size)[..., 0]
        return jnp.where(jnp.isfinite(padded), padded, NOT_LABELLED).astype(jnp.int32)
    shape = (len(labels), size, size)
    return jax.image.resize(labels.astype(jnp.int32), shape, method="nearest")


def random_flips(images: jax.Array, key: jax.Array) -> jax.Array:
    """Flip each image left-right and up-down, each with probability 1/2."""
    left_right, up_down = jax.random.bernoulli(key, shape=(2, images.shape[0], 1, 1, 1))
    images = jnp.where(left_right, images[:, :, ::-1], images)
    return jnp.where(up_down, images[:, ::-1], images)


def random_crops(images: jax.Array, key: jax.Array, size: int) -> jax.Array:
    """Cut a square of `size` pixels out of each image, at a random place."""
    batch, height, width, bands = images.shape
    if size >= min(height, width):
        return images
    corners = jax.random.randint(key, (batch, 2), 0, jnp.array([height, width]) - size + 1)

    def cut(image: jax.Array, corner: jax.Array) -> jax.Array:
        return jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (size, size, bands))

    return jax.vmap(cut)(images, corners)


def random_transposes(images: jax.Array, key: jax.Array) -> jax.Array:
    """Transpose each square image with probability 1/2; with flips, all rotations by 90 degrees."""
    transposed = jax.random.bernoulli(key, shape=(images.shape[0], 1, 1, 1))
    return jnp.where(transposed, images.swapaxes(1, 2), images)


NO_WEIGHTING = Weighting("none")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Settings of `preprocess`.

    Attributes:
      image_size: int, side of the model's input, pixels.
      mean: mean of each band, dB.
      std: standard deviation of each band, dB.
      weighting: weighting of the reconstruction loss; unused by other losses.
      resize_mode: an entry of `RESIZE_MODES`: "resize" or "pad".
      random_flip: bool, whether images are flipped at random.
      unit: unit of the raw batch, an entry of `radiometry.TO_DB`.
      random_rotation: bool, whether images are also rotated by multiples of 90 degrees.
      crop_size: side of random crops, pixels; None: whole images.
      speckle: filter of the images, at the size of the records.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weighting: Weighting = NO_WEIGHTING
    resize_mode: str = "resize"
    random_flip: bool = True
    unit: str = "dB"
    random_rotation: bool = False
    crop_size: int | None = None
    speckle: SpeckleFilter = NO_FILTER

    def __post_init__(self) -> None:
        look_up(RESIZE_MODES, self.resize_mode, "resize_mode")
        look_up(TO_DB, self.unit, "unit")


class PreparedBatch(NamedTuple):
    """Batch for the model; all arrays are (batch, height, width, band).

    Attributes:
      images: float32, standardised, 0 at nodata; what the encoder sees.
      weights: float32, of the loss, 0 at nodata.
      valid: bool, True where measured.
      target: what is reconstructed, in the form of `images`.
    """

    images: jax.Array
    weights: jax.Array
    valid: jax.Array
    target: jax.Array


def augment(images: jax.Array, key: jax.Array, settings: Preprocessing) -> jax.Array:
    """Crop, flip and rotate at random, as the settings say.

    Args:
      images: (batch, height, width, band), or labels in that form.
      key: equal keys change images and labels alike.
      settings: settings of the preprocessing.
    """
    if settings.crop_size is not None:
        images = random_crops(images, jax.random.fold_in(key, 1), settings.crop_size)
    if settings.random_flip:
        images = random_flips(images, key)
    if settings.random_rotation:
        images = random_transposes(images, jax.random.fold_in(key, 2))
    return images


def preprocess(raw: jax.Array, key: jax.Array, settings: Preprocessing) -> PreparedBatch:
    """Prepare a batch of raw backscatter.

    Args:
      raw: (batch, height, width, band) in `settings.unit`, float32 or float16, nodata not finite.
      key: key of crops, flips and rotations.
      settings: settings of the preprocessing.
    """
    db = TO_DB[settings.unit](raw.astype(jnp.float32))
    is_filtered = settings.speckle.filter != "none"
    if is_filtered:
        db = jnp.concatenate([db, reduce_speckle(db, settings.speckle)], -1)
    db = RESIZE_MODES[settings.resize_mode](db, settings.image_size)
    db = augment(db, key, settings)
    measured, filtered = jnp.split(db, 2, -1) if is_filtered else (db, db)
    valid = valid_pixels(measured)
    mean, std = jnp.array(settings.mean), jnp.array(settings.std)
    images, target = standardise(measured, mean, std), standardise(filtered, mean, std)
    if settings.speckle.filters_weights:
        weights = loss_weights(filtered, target, valid, settings.weighting)
    else:
        weights = loss_weights(measured, images, valid, settings.weighting)
    if settings.speckle.apply_to == "weights":
        target = images
    if settings.speckle.filters_input:
        images = target
    return PreparedBatch(images, weights, valid, target)
