"""Is the weighting doing anything, and where does the loss go? Numbers about one batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.models.masking import unpatchify
from sar_mixmae_jax.objectives.preprocess import PreparedBatch, Preprocessing
from sar_mixmae_jax.objectives.reconstruction import Reconstruction, restored_images
from sar_mixmae_jax.objectives.weighting import PIXELS

NEARLY_CONSTANT = 0.03
"""Below this coefficient of variation AdamW all but cancels the weights."""


class Contrast(NamedTuple):
    """How much the weights of a patch differ; (patch, band) each, NaN where nothing was measured.

    Attributes:
      cv: coefficient of variation, deviation over mean.
      dark_bright: mean weight in the darkest over that in the brightest decile.
    """

    cv: jax.Array
    dark_bright: jax.Array


def contrast(batch: PreparedBatch) -> Contrast:
    """The contrast of the weights of every patch and band."""
    seen = jnp.where(batch.valid, batch.images, jnp.nan)
    weights = jnp.where(batch.valid, batch.weights, jnp.nan)
    low, high = _deciles(seen)
    dark = jnp.nanmean(jnp.where(seen <= low, weights, jnp.nan), PIXELS)
    bright = jnp.nanmean(jnp.where(seen >= high, weights, jnp.nan), PIXELS)
    return Contrast(jnp.nanstd(weights, PIXELS) / jnp.nanmean(weights, PIXELS), dark / bright)


def flat_fraction(cv: jax.Array) -> jax.Array:
    """(band,) share of patches with a CV below `NEARLY_CONSTANT`, of (patch, band) CVs."""
    return jnp.nanmean(jnp.where(cv >= 0, cv < NEARLY_CONSTANT, jnp.nan), 0)


def diagnose(
    batch: PreparedBatch,
    result: Reconstruction,
    settings: Preprocessing,
    bands: tuple[str, ...],
    cell: int,
) -> dict[str, jax.Array]:
    """Weight and reconstruction diagnostics of a batch; scalars by name, some per band.

    - weight_cv: median over patches of the weights' deviation over mean.
    - weight_p05, weight_p95: percentiles over all valid pixels.
    - weight_dark_bright: median ratio of the mean weight in the darkest to the brightest decile.
    - weight_flat_share: share of patches with a CV below `NEARLY_CONSTANT`.
    - loss_dark_share: share of the weighted loss that falls on the darkest decile of pixels.
    - bias_db: mean of reconstruction minus measurement, dB.
    - explained_variance: 1 - weighted error / weighted error of predicting 0, over both bands: 0
      where the model knows no more than the mean. Speckle keeps it well below 1.

    Args:
      batch: what went into the model.
      result: what came out.
      settings: of the preprocessing, for the statistics.
      bands: names of the bands.
      cell: side of a mask cell in pixels.
    """
    seen = jnp.where(batch.valid, batch.images, jnp.nan)
    weights = jnp.where(batch.valid, batch.weights, jnp.nan)
    error = unpatchify(result.error, cell, len(bands))
    low, _ = _deciles(seen)
    cv, dark_bright = contrast(batch)
    prediction = restored_images(result, cell, len(bands))
    bias = jnp.nanmean(prediction - seen, (0, *PIXELS)) * jnp.array(settings.std)
    per_band = {
        "weight_cv": jnp.nanmedian(cv, 0),
        "weight_p05": jnp.nanpercentile(weights, 5.0, axis=(0, *PIXELS)),
        "weight_p95": jnp.nanpercentile(weights, 95.0, axis=(0, *PIXELS)),
        "weight_dark_bright": jnp.nanmedian(dark_bright, 0),
        "weight_flat_share": flat_fraction(cv),
        "loss_dark_share": jnp.where(seen <= low, error, 0.0).sum((0, *PIXELS))
        / jnp.maximum(error.sum((0, *PIXELS)), 1e-12),
        "bias_db": bias,
    }
    scalars = {
        f"{name}/{band}": values[number]
        for name, values in per_band.items()
        for number, band in enumerate(bands)
    }
    scalars["explained_variance"] = 1.0 - result.error.sum() / jnp.maximum(
        result.null_error.sum(), 1e-12
    )
    return scalars


def nearly_constant(scalars: dict[str, float], bands: tuple[str, ...]) -> list[str]:
    """The bands whose weights are nearly constant in the median patch."""
    return [band for band in bands if scalars[f"weight_cv/{band}"] < NEARLY_CONSTANT]


def _deciles(seen: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The lowest and the highest decile of the pixels of every patch and band, NaN = nodata."""
    low, high = jnp.nanpercentile(seen, jnp.array([10.0, 90.0]), axis=PIXELS, keepdims=True)
    return low, high
