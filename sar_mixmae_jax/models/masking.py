"""Mask units: patchify and its inverse, the statistics of a unit, masks and mixing.

A mask unit is a square of `side` pixels (32 in the published models): it is masked as a whole and
reconstructed as a whole. Its values are laid out (row, column, band), band last.
"""

import jax
import jax.numpy as jnp


def patchify(images: jax.Array, side: int) -> jax.Array:
    """Return (batch, units, side * side * band) of (batch, height, width, band), row by row."""
    batch, height, width, bands = images.shape
    rows, columns = height // side, width // side
    units = images.reshape(batch, rows, side, columns, side, bands)
    units = units.transpose(0, 1, 3, 2, 4, 5)  # batch, unit row, unit column, row, column, band
    return units.reshape(batch, rows * columns, side * side * bands)


def unpatchify(units: jax.Array, side: int, bands: int) -> jax.Array:
    """Return (batch, height, width, band) of `patchify`'s output, for square images."""
    batch, count, _ = units.shape
    rows = round(count**0.5)
    images = units.reshape(batch, rows, rows, side, side, bands)
    images = images.transpose(0, 1, 3, 2, 4, 5)  # batch, unit row, row, unit column, column, band
    return images.reshape(batch, rows * side, rows * side, bands)


def unit_moments(units: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return mean and deviation of every unit over its valid values, all bands together.

    The deviation is sqrt(variance + 1e-6) with the unbiased variance, as in MAE's normalised
    target (He et al., CVPR 2022).

    Args:
      units: (batch, units, values).
      valid: the same shape, True where measured.

    Returns:
      Two arrays (batch, units, 1). A unit without a valid value has mean 0 and deviation 1e-3.
    """
    count = valid.sum(-1, keepdims=True)
    mean = jnp.where(valid, units, 0.0).sum(-1, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.where(valid, jnp.square(units - mean), 0.0).sum(-1, keepdims=True)
    return mean, jnp.sqrt(squares / jnp.maximum(count - 1, 1) + 1e-6)


def random_mask(key: jax.Array, side: int, ratio: float) -> jax.Array:
    """Return a (side, side) grid of mask units with round(ratio * side²) ones, else zeros."""
    units = side * side
    ones = jnp.arange(units) < round(ratio * units)
    return jax.random.permutation(key, ones).reshape(side, side).astype(jnp.float32)


def upsample_mask(mask: jax.Array, side: int) -> jax.Array:
    """Repeat a (units, units) mask to a (side, side) grid of tokens or pixels."""
    factor = side // mask.shape[0]
    return mask.repeat(factor, axis=0).repeat(factor, axis=1)


def masked_pixels(mask: jax.Array, side: int) -> jax.Array:
    """Return (1, side, side, 1), True in mask units that are 1 in a (units, units) mask."""
    return upsample_mask(mask, side)[None, :, :, None] == 1


def mix_tokens(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Mix each image with its partner, the image at the same place of the reversed batch.

    Args:
      images: (batch, side, side, channel) pixels or tokens.
      mask: (units, units), 0 where the image itself is kept, 1 where the partner is taken.

    Returns:
      (batch, side, side, channel).
    """
    from_partner = masked_pixels(mask, images.shape[1])
    return jnp.where(from_partner, images[::-1], images)
