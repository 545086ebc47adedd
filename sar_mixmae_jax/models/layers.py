"""Layers of encoder and decoder, with the conventions of the PyTorch reference.

Inside blocks, activations are matrices (rows, width): the tokens of all windows or sequences of a
batch, one after another.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sar_mixmae_jax.models.initialisers import xavier_uniform
from sar_mixmae_jax.utils.errors import look_up

EPSILON = 1e-5
"""Epsilon of every LayerNorm of the reference; the default of Flax is 1e-6."""


def matmul_precision(dtype: DTypeLike) -> jax.lax.Precision | None:
    """Return the precision of matrix products: full float32, or the default of other types.

    Accelerators round the factors of float32 products to fewer bits by default.
    """
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else None


def linear(
    features: int, dtype: DTypeLike, *, bias: bool = True, name: str | None = None
) -> nn.Dense:
    """Return a linear layer with Xavier-uniform weights and zero bias, computed in `dtype`."""
    return nn.Dense(
        features,
        use_bias=bias,
        dtype=dtype,
        precision=matmul_precision(dtype),
        kernel_init=xavier_uniform(),
        name=name,
    )


def layer_norm(dtype: DTypeLike, **placement: Any) -> nn.LayerNorm:
    """Return a LayerNorm over the last axis; moments in float32, output in `dtype`.

    The variance is computed around the mean; the default of Flax, E[x²] - E[x]², loses digits.

    Args:
      dtype: dtype of the output.
      **placement: `name` or `parent` of the module.
    """
    return nn.LayerNorm(epsilon=EPSILON, dtype=dtype, use_fast_variance=False, **placement)


def gelu(x: jax.Array) -> jax.Array:
    """Return the exact (erf) GELU; of 16 bits, its gradient is computed from `x` again."""
    return _rounded_gelu(x) if jnp.finfo(x.dtype).bits < 32 else nn.gelu(x, approximate=False)


@jax.custom_vjp
def _rounded_gelu(x: jax.Array) -> jax.Array:
    # 1 + erf loses digits that erfc keeps where x is below -4: 1e-6 of the largest values.
    exact = x.astype(jnp.float32)
    return (exact * _normal_cdf(exact)).astype(x.dtype)


def _rounded_gelu_gradient(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    exact = x.astype(jnp.float32)
    density = jnp.exp(-0.5 * exact * exact) * (2 * math.pi) ** -0.5
    slope = _normal_cdf(exact) + exact * density
    return ((gradient.astype(jnp.float32) * slope).astype(x.dtype),)


def _normal_cdf(x: jax.Array) -> jax.Array:
    return 0.5 + 0.5 * jax.lax.erf(x * 0.5**0.5)


_rounded_gelu.defvjp(lambda x: (_rounded_gelu(x), x), _rounded_gelu_gradient)


class MLP(nn.Module):
    """Linear layer, exact (erf) GELU, linear layer.

    Attributes:
      ratio: int, hidden width over input width.
      dtype: dtype of the computation.
    """

    ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (rows, width) of (rows, width)."""
        width = x.shape[-1]
        x = gelu(linear(self.ratio * width, self.dtype, name="fc1")(x))
        return linear(width, self.dtype, name="fc2")(x)


MASKED_LOGIT = -1e30
"""Logit of keys that a query must not attend to."""

AttentionFn = Callable[..., jax.Array]
"""Attention with the arguments and the result of `attend`."""


def attend(
    qkv: jax.Array,
    tokens: int,
    heads: int,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Multi-head attention on a fused projection, within sequences; the softmax is in float32.

    Args:
      qkv: (rows, 3 * width), one sequence after another: query, key, value, each
        (head, width / heads).
      tokens: rows of a sequence.
      heads: number of heads.
      bias: (heads, tokens, tokens), added to the logits of every sequence, or None.
      mask: (windows, tokens), of that many sequences in turn, or None; a token attends only to
        tokens of its own mask value.

    Returns:
      (rows, width).
    """
    rows, triple = qkv.shape
    added: jax.Array | float = 0.0 if bias is None else bias
    if mask is not None:
        differ = mask[:, None, :, None] != mask[:, None, None, :]  # window, 1, query, key
        added = jnp.where(differ, MASKED_LOGIT, added)
    turn = jnp.shape(added)[:-3]
    qkv = qkv.reshape(-1, *turn, tokens, 3, heads, triple // (3 * heads))
    query, key, value = (qkv[..., i, :, :] for i in range(3))  # (..., tokens, heads, head width)
    precision = matmul_precision(qkv.dtype)
    logits = jnp.einsum(
        "...qhd,...khd->...hqk",
        query,
        key,
        precision=precision,
        preferred_element_type=jnp.float32,
    )
    logits = logits * query.shape[-1] ** -0.5 + added
    attention = nn.softmax(logits, axis=-1).astype(qkv.dtype)  # (..., heads, tokens, tokens)
    out = jnp.einsum("...hqk,...khd->...qhd", attention, value, precision=precision)
    return out.reshape(rows, triple // 3)


NormFn = Callable[..., tuple[jax.Array, jax.Array]]
"""Residual sum and LayerNorm with the arguments and the result of `add_norm`."""


def add_norm(
    x: jax.Array, change: jax.Array | None, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Add a residual branch and normalise; see `layer_norm`.

    Args:
      x: (rows, width).
      change: (rows, width) added to `x`, or None.
      scale: (width,) of the LayerNorm.
      bias: (width,) of the LayerNorm.

    Returns:
      The sum and its LayerNorm, both (rows, width) in the type of the sum.
    """
    x = x if change is None else x + change
    params = {"scale": scale, "bias": bias}
    normalised = layer_norm(x.dtype, parent=None).apply({"params": params}, x)
    return x, normalised  # type: ignore[return-value]


@dataclasses.dataclass(frozen=True)
class Kernels:
    """Functions that blocks compute attention and LayerNorm with.

    Attributes:
      attention: `attend`, or another function with its arguments and result.
      norm: `add_norm`, or another function with its arguments and result.
    """

    attention: AttentionFn = attend
    norm: NormFn = add_norm


PLAIN = Kernels()


class ResidualNorm(nn.Module):
    """Sum of a residual branch, and the LayerNorm of the sum.

    Attributes:
      norm: `add_norm`, or a function with the same arguments and result.
    """

    norm: NormFn = add_norm

    @nn.compact
    def __call__(
        self, x: jax.Array, change: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return x + change and its LayerNorm, both (rows, width)."""
        scale = self.param("scale", nn.initializers.ones, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        return self.norm(x, change, scale, bias)


class Prediction(nn.Module):
    """Linear layer with a float32 output: factors in the type of its input, sums in float32.

    Its gradients are products with a float32 factor, at the precision of `matmul_precision`.

    Attributes:
      features: int, width of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (rows, features) float32 of (rows, width)."""
        kernel = self.param("kernel", xavier_uniform(), (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        product = jax.lax.dot(
            x,
            kernel.astype(x.dtype),
            precision=matmul_precision(x.dtype),
            preferred_element_type=jnp.float32,
        )
        return product + bias


def drop_path_factors(key: jax.Array, rate: float, blocks: int, images: int) -> jax.Array:
    """Draw the factors of drop path (stochastic depth, Huang et al., ECCV 2016).

    Each of the two branches of a block is dropped for an image with a probability p that grows
    linearly from 0 at the first block to `rate` at the last. Kept branches are divided by 1 - p,
    which keeps the mean. The factors are an input of the encoder, which thus has no random state.

    Args:
      key: key of the draw.
      rate: probability p of the last block, below 1.
      blocks: number of blocks of the encoder.
      images: in the batch.

    Returns:
      (blocks, 2, images) factors of the attention and the MLP branches: 0 or 1 / (1 - p).
    """
    kept = 1.0 - rate * jnp.arange(blocks) / max(blocks - 1, 1)
    kept = kept[:, None, None]
    return jax.random.bernoulli(key, kept, (blocks, 2, images)) / kept


def scale_branch(rows: jax.Array, factors: jax.Array) -> jax.Array:
    """Multiply (rows, width), image after image, by the (images,) factor of each image."""
    images = rows.reshape(len(factors), -1, rows.shape[-1])  # image, token, width
    return (images * factors[:, None, None].astype(rows.dtype)).reshape(rows.shape)


def sincos_position_embedding(side: int, width: int) -> np.ndarray:
    """Return the fixed 2-D position embedding of MAE (He et al., CVPR 2022) for a square grid.

    The first half of the channels encodes the column, the second half the row; each half is sine
    then cosine of width / 4 frequencies from 1 down to 1e-4. Computed in float32.

    Args:
      side: rows and columns of the grid.
      width: channels.

    Returns:
      (side, side, width) float32.

    Raises:
      ValueError: `width` is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"width is {width}, expected a multiple of 4")
    exponents = (np.arange(width // 4) / (width // 4)).astype(np.float32)
    frequencies = np.float32(1) / np.float32(10_000) ** exponents
    angles = np.arange(side, dtype=np.float32)[:, None] * frequencies  # (side, width / 4)
    axis = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)  # (side, width / 2)
    columns = np.broadcast_to(axis[None, :], (side, side, width // 2))
    rows = np.broadcast_to(axis[:, None], (side, side, width // 2))
    return np.concatenate([columns, rows], axis=-1)


REMAT = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""Policies by name: keep all; keep the products with weights, and recompute attention, LayerNorm
and GELU; keep the input of a block, and recompute the block."""


def remat_block(block: type[nn.Module], remat: str) -> type[nn.Module]:
    """Return a class of blocks that keep what the policy `remat` names.

    Raises:
      InputError: the policy is unknown.
    """
    policy = look_up(REMAT, remat, "remat")
    return nn.remat(block, policy=policy) if policy else block
