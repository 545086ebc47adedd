"""Attention as one GPU kernel each way, in Pallas for Triton; logits never leave the chip.

One program computes a block of queries of one head, against all keys of its sequence. Tokens and
head width are padded to powers of two, which Triton requires, by masked loads and stores. The
backward pass computes the logits again, and one program goes through a run of sequences, so that
the gradient of the bias leaves the chip once a run.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from sar_mixmae_jax.models.layers import MASKED_LOGIT, matmul_precision

SMALLEST = 16
"""Smallest side of a matrix that Triton multiplies."""
LARGEST_BLOCK = 4096
"""Logits of a program: more do not fit into its registers (compiled for an H100)."""
QUERY, KEY, VALUE = (np.int32(part) for part in range(3))
RUN = 16
"""Sequences of a program in the backward pass."""


class _Sizes(NamedTuple):
    """Sizes of a kernel.

    Attributes:
      sequences: in the batch.
      tokens: number of tokens of a sequence.
      heads: number of heads.
      width: width of a head.
      keys: tokens, padded.
      channels: width of a head, padded.
      queries: of a program; divides `keys`.
    """

    sequences: int
    tokens: int
    heads: int
    width: int
    keys: int
    channels: int
    queries: int

    @property
    def blocks(self) -> int:
        """Blocks of queries."""
        return self.keys // self.queries

    @property
    def warps(self) -> int:
        """Warps of a program, so that few or no registers are spilled."""
        return max(self.keys**2 // 1024, 1) if self.keys <= 64 else 8


def _sizes(qkv: jax.Array, heads: int, tokens: int) -> _Sizes:
    rows, triple = qkv.shape
    width = triple // (3 * heads)
    keys = max(SMALLEST, pl.next_power_of_2(tokens))
    channels = max(SMALLEST, pl.next_power_of_2(width))
    queries = min(keys, max(SMALLEST, LARGEST_BLOCK // keys))
    return _Sizes(rows // tokens, tokens, heads, width, keys, channels, queries)


def fused_attention(
    qkv: jax.Array,
    tokens: int,
    heads: int,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Compute `layers.attend` in one kernel, differentiable in `qkv` and `bias`.

    Products are in the type of `qkv`, sums, softmax and gradient of the bias in float32.

    Args:
      qkv: (rows, 3 * width), see `layers.attend`.
      tokens: rows of a sequence.
      heads: number of heads.
      bias: (heads, tokens, tokens) added to the logits, or None.
      mask: (windows, tokens) of windows in turn, or None, see `layers.attend`.
      interpret: compute the kernel with JAX operations, on any device; for tests.

    Returns:
      (rows, width).
    """
    if bias is None:
        bias = jnp.zeros((heads, tokens, tokens))
    if mask is None:
        mask = jnp.zeros((1, tokens))
    return _attention(qkv, bias, mask, interpret)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _attention(qkv: jax.Array, bias: jax.Array, mask: jax.Array, interpret: bool) -> jax.Array:
    return _forward(qkv, bias, mask, interpret)[0]


def _forward(
    qkv: jax.Array, bias: jax.Array, mask: jax.Array, interpret: bool
) -> tuple[jax.Array, Any]:
    s = _sizes(qkv, *bias.shape[:2])
    out = pl.pallas_call(
        partial(_forward_kernel, s=s),
        grid=(s.sequences, s.heads, s.blocks),
        in_specs=[
            pl.BlockSpec((None, s.keys, 3, None, s.channels), lambda n, h, b: (n, 0, 0, h, 0)),
            pl.BlockSpec((None, s.queries, s.keys), lambda n, h, b: (h, b, 0)),
            pl.BlockSpec((None, s.keys), lambda n, h, b: (n % len(mask), 0)),
        ],
        out_specs=pl.BlockSpec((None, s.queries, None, s.channels), lambda n, h, b: (n, b, h, 0)),
        out_shape=jax.ShapeDtypeStruct((s.sequences, s.tokens, s.heads, s.width), qkv.dtype),
        compiler_params=triton.CompilerParams(num_warps=s.warps, num_stages=1),
        interpret=interpret,
        name="attention",
    )(qkv.reshape(s.sequences, s.tokens, 3, s.heads, s.width), *_pad(bias, mask, s))
    return out.reshape(len(qkv), -1), (qkv, bias, mask)


def _backward(interpret: bool, kept: Any, gradient: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    qkv, bias, mask = kept
    s = _sizes(qkv, *bias.shape[:2])
    runs = pl.cdiv(s.sequences, RUN)
    dqkv, dbias = pl.pallas_call(
        partial(_backward_kernel, s=s, windows=len(mask)),
        grid=(runs, s.heads, s.blocks),
        in_specs=[
            pl.BlockSpec((RUN, s.keys, 3, None, s.channels), lambda r, h, b: (r, 0, 0, h, 0)),
            pl.BlockSpec((None, s.queries, s.keys), lambda r, h, b: (h, b, 0)),
            pl.BlockSpec((len(mask), s.keys), lambda r, h, b: (0, 0)),
            pl.BlockSpec((RUN, s.queries, None, s.channels), lambda r, h, b: (r, b, h, 0)),
        ],
        out_specs=[
            pl.BlockSpec(
                (None, RUN, s.keys, 3, None, s.channels), lambda r, h, b: (b, r, 0, 0, h, 0)
            ),
            pl.BlockSpec((None, None, s.queries, s.keys), lambda r, h, b: (r, h, b, 0)),
        ],
        out_shape=[
            jax.ShapeDtypeStruct(
                (s.blocks, s.sequences, s.tokens, 3, s.heads, s.width),
                qkv.dtype if s.blocks == 1 else jnp.float32,
            ),
            jax.ShapeDtypeStruct((runs, s.heads, s.keys, s.keys), jnp.float32),
        ],
        compiler_params=triton.CompilerParams(num_warps=s.warps, num_stages=1),
        interpret=interpret,
        name="attention_gradient",
    )(
        qkv.reshape(s.sequences, s.tokens, 3, s.heads, s.width),
        *_pad(bias, mask, s),
        gradient.reshape(s.sequences, s.tokens, s.heads, s.width),
    )
    if s.blocks > 1:
        # A block writes the gradient of its own queries only, and its part of the others'.
        own = jnp.arange(s.tokens) // s.queries == jnp.arange(s.blocks)[:, None]
        written = own[:, None, :, None] | (jnp.arange(3) > 0)  # block, 1, token, query/key/value
        dqkv = jnp.where(written[..., None, None], dqkv, 0.0).sum(0)
    dbias = dbias.sum(0)[:, : s.tokens, : s.tokens]
    return dqkv.reshape(qkv.shape).astype(qkv.dtype), dbias.astype(bias.dtype), None


_attention.defvjp(_forward, _backward)


def _pad(bias: jax.Array, mask: jax.Array, s: _Sizes) -> tuple[jax.Array, jax.Array]:
    """Return bias (heads, keys, keys) and mask (windows, keys); padded keys are masked."""
    extra = s.keys - s.tokens
    bias = jnp.pad(bias.astype(jnp.float32), ((0, 0), (0, extra), (0, 0)))
    bias = jnp.pad(bias, ((0, 0), (0, 0), (0, extra)), constant_values=MASKED_LOGIT)
    return bias, jnp.pad(mask, ((0, 0), (0, extra)))


def _forward_kernel(qkv_ref: Any, bias_ref: Any, mask_ref: Any, out_ref: Any, *, s: _Sizes) -> None:
    start = pl.program_id(2) * s.queries
    query = _load(qkv_ref.at[pl.ds(start, s.queries), QUERY], start, s)
    key, value = (_load(qkv_ref.at[:, part], 0, s) for part in (KEY, VALUE))
    differ = mask_ref[pl.ds(start, s.queries)][:, None] != mask_ref[...][None]
    attention = _softmax(query, key, bias_ref[...], differ, s)
    _store(out_ref, _dot(attention.astype(value.dtype), value), start, s)


def _backward_kernel(
    qkv_ref: Any,
    bias_ref: Any,
    mask_ref: Any,
    gradient_ref: Any,
    dqkv_ref: Any,
    dbias_ref: Any,
    *,
    s: _Sizes,
    windows: int,
) -> None:
    first, start = pl.program_id(0) * RUN, pl.program_id(2) * s.queries
    bias, scale = bias_ref[...], s.width**-0.5

    def add_sequence(n: jax.Array, dbias: jax.Array) -> jax.Array:
        query = _load(qkv_ref.at[n, pl.ds(start, s.queries), QUERY], start, s)
        key, value = (_load(qkv_ref.at[n, :, part], 0, s) for part in (KEY, VALUE))
        gradient = _load(gradient_ref.at[n], start, s)
        window = (first + n) % windows
        differ = mask_ref[window, pl.ds(start, s.queries)][:, None] != mask_ref[window, :][None]
        attention = _softmax(query, key, bias, differ, s)
        change = _dot(gradient, value.T)
        dlogits = attention * (change - jnp.sum(attention * change, axis=-1, keepdims=True))
        rounded = dlogits.astype(key.dtype)
        rows = pl.ds(start, s.queries)
        _store(dqkv_ref.at[n, rows, QUERY], _dot(rounded, key) * scale, start, s)
        _store(dqkv_ref.at[n, :, KEY], _dot(rounded.T, query) * scale, 0, s)
        _store(dqkv_ref.at[n, :, VALUE], _dot(attention.astype(value.dtype).T, gradient), 0, s)
        return dbias + dlogits

    count = jnp.minimum(RUN, s.sequences - first)
    dbias_ref[...] = jax.lax.fori_loop(0, count, add_sequence, jnp.zeros(bias.shape, jnp.float32))


def _softmax(
    query: jax.Array, key: jax.Array, bias: jax.Array, differ: jax.Array, s: _Sizes
) -> jax.Array:
    logits = _dot(query, key.T) * s.width**-0.5 + bias
    logits = jnp.where(differ, MASKED_LOGIT, logits)
    exponentials = jnp.exp(logits - jnp.max(logits, axis=-1, keepdims=True))
    return exponentials / jnp.sum(exponentials, axis=-1, keepdims=True)


def _dot(left: jax.Array, right: jax.Array) -> jax.Array:
    return jax.lax.dot_general(
        left,
        right,
        (((1,), (0,)), ((), ())),
        precision=matmul_precision(left.dtype),
        preferred_element_type=jnp.float32,
    )


def _load(ref: Any, start: Any, s: _Sizes) -> jax.Array:
    """Load (rows, channels) of the tokens from `start`, 0 where there are none."""
    inside = _inside(ref.shape[0], start, s)
    return triton.load(ref, mask=inside, other=None if inside is None else 0.0)


def _store(ref: Any, values: jax.Array, start: Any, s: _Sizes) -> None:
    """Store (rows, channels) from the token `start` on, where there are tokens."""
    triton.store(ref, values.astype(ref.dtype), mask=_inside(len(values), start, s))


def _inside(rows: int, start: Any, s: _Sizes) -> jax.Array | None:
    """Return (rows, channels) bool, True where neither is padding; None where nothing is."""
    if s.tokens == s.keys and s.width == s.channels:
        return None
    shape = (rows, s.channels)
    row = start + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    return (row < s.tokens) & (jax.lax.broadcasted_iota(jnp.int32, shape, 1) < s.width)
