"""The mask that mixes images: 1 where a cell comes from the partner image, 0 where it is its own.

One mask serves a whole device batch; the partner of an image is its mirror in the batch
(`images[::-1]`), per device (Liu et al., MixMAE, CVPR 2023).
"""

import jax
import jax.numpy as jnp


def random_mask(key: jax.Array, side: int, ratio: float) -> jax.Array:
    """A (side, side) grid of cells with round(ratio * side²) ones at random places."""
    cells = side * side
    ones = jnp.arange(cells) < round(ratio * cells)
    return jax.random.permutation(key, ones).reshape(side, side).astype(jnp.float32)


def enlarge(mask: jax.Array, side: int) -> jax.Array:
    """Repeats the (cells, cells) mask to a (side, side) grid of tokens or pixels."""
    factor = side // mask.shape[0]
    return mask.repeat(factor, axis=0).repeat(factor, axis=1)


def mix(images: jax.Array, mask: jax.Array) -> jax.Array:
    """Own where the mask is 0, partner where it is 1.

    Args:
      images: (batch, side, side, channel) pixels or tokens.
      mask: (cells, cells), enlarged to the grid of `images`.
    """
    from_partner = enlarge(mask, images.shape[1])[None, :, :, None] == 1
    return jnp.where(from_partner, images[::-1], images)
