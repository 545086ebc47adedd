"""Drop path (stochastic depth, Huang et al. 2016): branches of blocks left out at random.

In training each of the two branches of a block is left out for an image with a probability that
grows linearly from 0 at the first block to `rate` at the last; what stays is scaled up, so that the
mean stays the same. What is drawn is an array that the encoder is given, so it has no random state.
"""

import jax
import jax.numpy as jnp


def branch_factors(key: jax.Array, rate: float, blocks: int, images: int) -> jax.Array:
    """(blocks, 2, images) factors of the attention and the MLP branches: 0, or 1 / (1 - p).

    Args:
      key: of the draw.
      rate: probability p of the last block, below 1.
      blocks: of the encoder.
      images: in the batch.
    """
    kept = 1.0 - rate * jnp.arange(blocks) / max(blocks - 1, 1)
    kept = kept[:, None, None]
    return jax.random.bernoulli(key, kept, (blocks, 2, images)) / kept


def scale(rows: jax.Array, factors: jax.Array) -> jax.Array:
    """(rows, width), image after image, times the (images,) factor of its image."""
    images = rows.reshape(len(factors), -1, rows.shape[-1])
    return (images * factors[:, None, None].astype(rows.dtype)).reshape(rows.shape)
