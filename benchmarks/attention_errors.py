"""Errors of the fused attention and of its gradients, on the device, against the plain form."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.layers import AttentionFn, attend

SHAPES = (
    (64, 4, 32, 40, 4),
    (16, 8, 32, 33, 1),
    (49, 3, 32, 18, 2),
    (64, 4, 48, 20, 4),
    (100, 2, 24, 9, 3),
    (256, 2, 32, 8, 4),
)
"""Tokens, heads, width of a head, sequences and masks."""


def worst_error(attention: AttentionFn, shape: tuple[int, ...], dtype: DTypeLike) -> float:
    """Return the largest relative error of output and gradients, against `attend` in float32.

    Args:
      attention: is checked, with inputs of type `dtype`.
      shape: an entry of `SHAPES`.
      dtype: of query, key and value.
    """
    tokens, heads, width, sequences, windows = shape
    keys = jax.random.split(jax.random.key(tokens), 4)
    qkv = jax.random.normal(keys[0], (sequences * tokens, 3 * heads * width)).astype(dtype)
    bias = jax.random.normal(keys[1], (heads, tokens, tokens))
    mask = jax.random.bernoulli(keys[2], shape=(windows, tokens)).astype(jnp.float32)
    weights = jax.random.normal(keys[3], (sequences * tokens, heads * width))

    def outputs(function: Callable[..., jax.Array], qkv: jax.Array) -> list[jax.Array]:
        def total(qkv: jax.Array, bias: jax.Array) -> Any:
            out = function(qkv, tokens, heads, bias, mask)
            return (out * weights).sum(), out

        results = jax.jit(jax.grad(total, (0, 1), has_aux=True))(qkv, bias)
        return [leaf.astype(jnp.float32) for leaf in jax.tree.leaves(results)]

    pairs = zip(outputs(attention, qkv), outputs(attend, qkv.astype(jnp.float32)), strict=True)
    return max(float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b)) for a, b in pairs)
