"""Radiometry on arrays: dB and linear power, valid pixels, standardisation per band."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sar_mixmae_jax.data.metadata import FLOOR_DB


def db_to_linear(db: jax.Array) -> jax.Array:
    """Linear power, 10^(dB/10)."""
    return 10.0 ** (db / 10.0)


def linear_to_db(power: jax.Array) -> jax.Array:
    """dB, 10 log10(power); power must be positive."""
    return 10.0 * jnp.log10(power)


def power_to_db(power: jax.Array) -> jax.Array:
    """DB of measured linear power; 0 and below become `FLOOR_DB`, nodata stays not finite."""
    db = jnp.where(power > 0, linear_to_db(jnp.where(power > 0, power, 1.0)), FLOOR_DB)
    return jnp.where(jnp.isfinite(power), db, jnp.nan)


TO_DB: dict[str, Callable[[jax.Array], jax.Array]] = {"dB": lambda db: db, "linear": power_to_db}
"""The way to dB from the unit of records."""


def valid_pixels(db: jax.Array) -> jax.Array:
    """True where there is a measurement, per pixel and band: nodata is NaN (or any non-finite)."""
    return jnp.isfinite(db)


def standardise(db: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Zero mean and unit deviation per band; nodata becomes 0, which is the mean.

    Args:
      db: (..., bands) backscatter in dB, nodata not finite.
      mean: (bands,) dB.
      std: (bands,) dB.
    """
    return jnp.where(valid_pixels(db), (db - mean) / std, 0.0)


def destandardise(standardised: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """The way back from `standardise`, in dB."""
    return standardised * std + mean
