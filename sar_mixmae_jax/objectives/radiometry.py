"""Radiometry in JAX: dB and linear power, valid pixels, standardisation per band.

Images are (batch, height, width, band) backscatter in dB everywhere in this project, the bands in
the order of the configuration; nodata is every value that is not finite (NaN in records).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sar_mixmae_jax.data.metadata import FLOOR_DB


def db_to_linear(db: jax.Array) -> jax.Array:
    """Return linear power, 10^(dB / 10)."""
    return 10.0 ** (db / 10.0)


def linear_to_db(power: jax.Array) -> jax.Array:
    """Return dB, 10 log10(power), of positive power."""
    return 10.0 * jnp.log10(power)


def power_to_db(power: jax.Array) -> jax.Array:
    """Return dB of measured linear power; 0 and below become `FLOOR_DB`, nodata becomes NaN."""
    db = jnp.where(power > 0, linear_to_db(jnp.where(power > 0, power, 1.0)), FLOOR_DB)
    return jnp.where(jnp.isfinite(power), db, jnp.nan)


TO_DB: dict[str, Callable[[jax.Array], jax.Array]] = {"dB": lambda db: db, "linear": power_to_db}
"""Functions to dB, by the unit of records."""


def valid_pixels(db: jax.Array) -> jax.Array:
    """Return True where a pixel was measured, per band: where the value is finite."""
    return jnp.isfinite(db)


def standardise(db: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return images with zero mean and unit deviation per band; nodata becomes 0, the mean.

    Args:
      db: (…, band) backscatter in dB, nodata not finite.
      mean: (band,) mean, dB.
      std: (band,) standard deviation, dB.
    """
    return jnp.where(valid_pixels(db), (db - mean) / std, 0.0)


def destandardise(standardised: jax.Array, mean: jax.Array, std: jax.Array) -> jax.Array:
    """Return dB of standardised images, the inverse of `standardise`."""
    return standardised * std + mean


def window_mean(values: jax.Array, valid: jax.Array, side: int) -> jax.Array:
    """Return the mean of the valid values in a window around each pixel, 0 where there are none.

    Windows are cut off at the edges of the image.

    Args:
      values: (batch, height, width, band).
      valid: of the same shape.
      side: side of the window, pixels, odd.
    """

    def window_sum(array: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(
            array, jnp.zeros((), array.dtype), jax.lax.add, (1, side, side, 1), (1, 1, 1, 1), "SAME"
        )

    total = window_sum(jnp.where(valid, values, 0.0))
    return total / jnp.maximum(window_sum(valid.astype(values.dtype)), 1.0)
