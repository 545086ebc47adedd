"""Mask cells: cutting images into cells and back, and the statistics of a cell.

A cell is a square of `side` pixels (32 in the published models), the unit that is masked and the
unit that the decoder reconstructs. Its values are laid out (row, column, band), band last.
"""

import jax
import jax.numpy as jnp


def patchify(images: jax.Array, side: int) -> jax.Array:
    """(batch, height, width, band) -> (batch, cells, side * side * band), cells row by row."""
    batch, height, width, bands = images.shape
    rows, columns = height // side, width // side
    cells = images.reshape(batch, rows, side, columns, side, bands)
    cells = cells.transpose(0, 1, 3, 2, 4, 5)  # batch, row of cells, column of cells, ...
    return cells.reshape(batch, rows * columns, side * side * bands)


def unpatchify(cells: jax.Array, side: int, bands: int) -> jax.Array:
    """The way back from `patchify`, for square images."""
    batch, count, _ = cells.shape
    rows = round(count**0.5)
    images = cells.reshape(batch, rows, rows, side, side, bands)
    images = images.transpose(0, 1, 3, 2, 4, 5)
    return images.reshape(batch, rows * side, rows * side, bands)


def cell_moments(cells: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and deviation of every cell over its valid values, all bands together.

    The deviation is sqrt(variance + 1e-6), the variance unbiased, as in MAE's normalised target.

    Args:
      cells: (batch, cells, values).
      valid: the same shape, True where measured.

    Returns:
      Two arrays (batch, cells, 1). A cell without a valid value has mean 0 and deviation 1e-3.
    """
    count = valid.sum(-1, keepdims=True)
    mean = jnp.where(valid, cells, 0.0).sum(-1, keepdims=True) / jnp.maximum(count, 1)
    squares = jnp.where(valid, jnp.square(cells - mean), 0.0).sum(-1, keepdims=True)
    return mean, jnp.sqrt(squares / jnp.maximum(count - 1, 1) + 1e-6)


def random_mask(key: jax.Array, side: int, ratio: float) -> jax.Array:
    """A (side, side) grid of cells with round(ratio * side²) ones at random places."""
    cells = side * side
    ones = jnp.arange(cells) < round(ratio * cells)
    return jax.random.permutation(key, ones).reshape(side, side).astype(jnp.float32)


def upsample_mask(mask: jax.Array, side: int) -> jax.Array:
    """Repeats the (cells, cells) mask to a (side, side) grid of tokens or pixels."""
    factor = side // mask.shape[0]
    return mask.repeat(factor, axis=0).repeat(factor, axis=1)


def mix_tokens(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Own where the mask is 0, partner where it is 1.

    Args:
      images: (batch, side, side, channel) pixels or tokens.
      mask: (cells, cells), enlarged to the grid of `images`.
    """
    from_partner = upsample_mask(mask, images.shape[1])[None, :, :, None] == 1
    return jnp.where(from_partner, images[::-1], images)
