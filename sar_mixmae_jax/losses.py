"""Losses, unreduced: who averages decides over what."""

import jax
import jax.numpy as jnp


def weighted_squared_error(
    prediction: jax.Array, target: jax.Array, weights: jax.Array
) -> jax.Array:
    """W (prediction - target)², element by element.

    Raises:
      ValueError: the shapes differ.
    """
    if not prediction.shape == target.shape == weights.shape:
        raise ValueError(
            f"prediction {prediction.shape}, target {target.shape} and weights {weights.shape}: "
            "expected equal shapes"
        )
    return weights * jnp.square(prediction - target)
