"""Residual sum and LayerNorm as one GPU kernel each way, in Pallas for Triton.

A program computes some whole rows. Rows and channels are padded to powers of two, which Triton
requires, by masked loads and stores. The backward pass normalises again, and one program goes
through a run of rows, so that the gradients of scale and bias leave the chip once a run.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from sar_mixmae_jax.models.layers import EPSILON

TILE = 2048
"""Values of a row block that a program holds at a time."""
WARPS = 4
"""Warps of a program."""
PROGRAMS = 1024
"""Programs of the backward pass: at least that many, and less than twice, if rows suffice."""


class _Sizes(NamedTuple):
    """Sizes of a kernel.

    Attributes:
      rows: rows of the matrix.
      channels: channels of a row.
      padded: channels, padded.
      tile: rows that a program computes at a time.
      run: tiles of a program in the backward pass.
    """

    rows: int
    channels: int
    padded: int
    tile: int
    run: int


def _sizes(x: jax.Array) -> _Sizes:
    rows, channels = x.shape
    padded = pl.next_power_of_2(channels)
    tile = _tile(padded)
    return _Sizes(rows, channels, padded, tile, max(1, rows // (tile * PROGRAMS)))


def rows_of_programs(width: int) -> int:
    """Return the rows for which every program of the backward pass computes one tile."""
    return PROGRAMS * _tile(pl.next_power_of_2(width))


def _tile(padded: int) -> int:
    return max(1, TILE // padded)


def fused_norm(
    x: jax.Array,
    change: jax.Array | None,
    scale: jax.Array,
    bias: jax.Array,
    *,
    interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
    """Compute `layers.add_norm` in one kernel, differentiable in all arrays.

    Sums, moments and gradients of scale and bias are in float32.

    Args:
      x: (rows, width).
      change: (rows, width) added to `x`, or None.
      scale: (width,) of the LayerNorm.
      bias: (width,) of the LayerNorm.
      interpret: compute the kernel with JAX operations, on any device; for tests.

    Returns:
      The sum and its LayerNorm, both (rows, width) in the type of `x`.
    """
    return _add_norm((x,) if change is None else (x, change), scale, bias, interpret)


Terms = tuple[jax.Array, ...]
"""One or two (rows, width) arrays that are added."""


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _add_norm(
    terms: Terms, scale: jax.Array, bias: jax.Array, interpret: bool
) -> tuple[jax.Array, jax.Array]:
    return _add_norm_forward(terms, scale, bias, interpret)[0]


def _add_norm_forward(
    terms: Terms, scale: jax.Array, bias: jax.Array, interpret: bool
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    outputs = _forward(terms, scale, bias, interpret)
    total, normalised = outputs if len(terms) == 2 else (terms[0], *outputs)
    return (total, normalised), (total, scale, bias, len(terms))


def _add_norm_backward(
    interpret: bool, kept: Any, gradients: tuple[jax.Array, jax.Array]
) -> tuple[Terms, jax.Array, jax.Array]:
    total, scale, bias, terms = kept
    dx, dscale, dbias = _backward(total, scale, *gradients, interpret)
    return (dx,) * terms, dscale.astype(scale.dtype), dbias.astype(bias.dtype)


_add_norm.defvjp(_add_norm_forward, _add_norm_backward)


def _forward(
    terms: Terms, scale: jax.Array, bias: jax.Array, interpret: bool
) -> Sequence[jax.Array]:
    x = terms[0]
    s = _sizes(x)
    tile = pl.BlockSpec((s.tile, s.padded), lambda n: (n, 0))
    channels = pl.BlockSpec((s.padded,), lambda n: (0,))
    return pl.pallas_call(
        partial(_forward_kernel, s=s, terms=len(terms)),
        grid=(pl.cdiv(s.rows, s.tile),),
        in_specs=[tile] * len(terms) + [channels] * 2,
        out_specs=[tile] * len(terms),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype)] * len(terms),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="norm",
    )(*terms, _pad(scale, s), _pad(bias, s))


def _backward(
    x: jax.Array, scale: jax.Array, dtotal: jax.Array, dnormalised: jax.Array, interpret: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    s = _sizes(x)
    programs = pl.cdiv(s.rows, s.tile * s.run)
    rows = pl.BlockSpec((s.tile * s.run, s.padded), lambda n: (n, 0))
    partials = pl.BlockSpec((None, s.padded), lambda n: (n, 0))
    dx, *sums = pl.pallas_call(
        partial(_backward_kernel, s=s),
        grid=(programs,),
        in_specs=[rows] * 3 + [pl.BlockSpec((s.padded,), lambda n: (0,))],
        out_specs=[rows, partials, partials],
        out_shape=[
            jax.ShapeDtypeStruct(x.shape, x.dtype),
            *[jax.ShapeDtypeStruct((programs, s.padded), jnp.float32)] * 2,
        ],
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
        interpret=interpret,
        name="norm_gradient",
    )(x, dtotal, dnormalised, _pad(scale, s))
    dscale, dbias = (total.sum(0)[: s.channels] for total in sums)
    return dx, dscale, dbias


def _pad(values: jax.Array, s: _Sizes) -> jax.Array:
    return jnp.pad(values.astype(jnp.float32), (0, s.padded - s.channels))


def _forward_kernel(*refs: Any, s: _Sizes, terms: int) -> None:
    inputs, (scale_ref, bias_ref, *outputs) = refs[:terms], refs[terms:]
    inside = _inside(pl.program_id(0) * s.tile, s)
    x = _load(inputs[0], inside)
    if terms == 2:
        total = (x + _load(inputs[1], inside)).astype(outputs[0].dtype)
        triton.store(outputs[0], total, mask=inside)
        x = total.astype(jnp.float32)
    normalised, _ = _normalise(x, s)
    out = normalised * scale_ref[...][None] + bias_ref[...][None]
    triton.store(outputs[-1], out.astype(outputs[-1].dtype), mask=inside)


def _backward_kernel(
    x_ref: Any,
    dtotal_ref: Any,
    dnormalised_ref: Any,
    scale_ref: Any,
    dx_ref: Any,
    dscale_ref: Any,
    dbias_ref: Any,
    *,
    s: _Sizes,
) -> None:
    scale = scale_ref[...][None]
    first = pl.program_id(0) * s.tile * s.run

    def add_tile(n: jax.Array, sums: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        rows = pl.ds(n * s.tile, s.tile)
        inside = _inside(first + n * s.tile, s)
        x, dtotal, dout = (
            _load(ref.at[rows, :], inside) for ref in (x_ref, dtotal_ref, dnormalised_ref)
        )
        normalised, factor = _normalise(x, s)
        scaled = dout * scale
        along = jnp.sum(scaled * normalised, axis=-1, keepdims=True) / s.channels
        mean = jnp.sum(scaled, axis=-1, keepdims=True) / s.channels
        dx = dtotal + factor * (scaled - mean - normalised * along)
        triton.store(dx_ref.at[rows, :], dx.astype(dx_ref.dtype), mask=inside)
        return sums[0] + dout * normalised, sums[1] + dout

    zeros = jnp.zeros((s.tile, s.padded), jnp.float32)
    dscale, dbias = jax.lax.fori_loop(0, s.run, add_tile, (zeros, zeros))
    dscale_ref[...] = jnp.sum(dscale, axis=0)
    dbias_ref[...] = jnp.sum(dbias, axis=0)


def _normalise(x: jax.Array, s: _Sizes) -> tuple[jax.Array, jax.Array]:
    """Return the rows with zero mean and unit variance, and the factor 1 / deviation."""
    centred = x - jnp.sum(x, axis=-1, keepdims=True) / s.channels
    if s.channels != s.padded:
        channel = jax.lax.broadcasted_iota(jnp.int32, x.shape, 1)
        centred = jnp.where(channel < s.channels, centred, 0.0)
    variance = jnp.sum(centred * centred, axis=-1, keepdims=True) / s.channels
    factor = jax.lax.rsqrt(variance + EPSILON)
    return centred * factor, factor


def _load(ref: Any, inside: jax.Array | None) -> jax.Array:
    """Load (rows, channels) in float32, 0 where there are none."""
    return triton.load(ref, mask=inside, other=None if inside is None else 0.0).astype(jnp.float32)


def _inside(first: Any, s: _Sizes) -> jax.Array | None:
    """Return (tile, padded) bool, True where no padding is; None if nothing is padded.

    Args:
      first: row of the matrix that the tile begins with.
      s: sizes.
    """
    if s.channels == s.padded and s.rows % (s.tile * s.run) == 0:
        return None
    shape = (s.tile, s.padded)
    row = first + jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    return (row < s.rows) & (jax.lax.broadcasted_iota(jnp.int32, shape, 1) < s.channels)
