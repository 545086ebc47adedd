"""Diagnostics of a batch: contrast of the loss weights, and where the loss and the bias are."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.models.masking import unpatchify
from sar_mixmae_jax.objectives.preprocess import PreparedBatch, Preprocessing
from sar_mixmae_jax.objectives.reconstruction import Reconstruction, restored_images
from sar_mixmae_jax.objectives.weighting import PIXELS

NEARLY_CONSTANT = 0.03
"""Coefficient of variation below which AdamW nearly cancels the effect of the weights."""


class Contrast(NamedTuple):
    """Contrast of the weights of each image, (batch, band), NaN where nothing was measured.

    Attributes:
      cv: coefficient of variation, standard deviation over mean.
      dark_bright: mean weight in the darkest decile of pixels over that in the brightest.
    """

    cv: jax.Array
    dark_bright: jax.Array


def contrast(batch: PreparedBatch) -> Contrast:
    """Return the contrast of the weights of every image and band."""
    measured = jnp.where(batch.valid, batch.images, jnp.nan)
    weights = jnp.where(batch.valid, batch.weights, jnp.nan)
    low, high = _deciles(measured)
    dark = jnp.nanmean(jnp.where(measured <= low, weights, jnp.nan), PIXELS)
    bright = jnp.nanmean(jnp.where(measured >= high, weights, jnp.nan), PIXELS)
    return Contrast(jnp.nanstd(weights, PIXELS) / jnp.nanmean(weights, PIXELS), dark / bright)


def flat_fraction(cv: jax.Array) -> jax.Array:
    """Return the (band,) share of images with a CV below `NEARLY_CONSTANT`, of (batch, band)."""
    return jnp.nanmean(jnp.where(cv >= 0, cv < NEARLY_CONSTANT, jnp.nan), 0)


def diagnose(
    batch: PreparedBatch,
    result: Reconstruction,
    settings: Preprocessing,
    bands: tuple[str, ...],
    side: int,
) -> dict[str, jax.Array]:
    """Return diagnostics of weights and reconstruction, scalars by name.

    Per band, as "NAME/BAND":

    - weight_cv: median over images of the coefficient of variation of the weights.
    - weight_p05, weight_p95: percentiles of the weights over all valid pixels.
    - weight_dark_bright: median ratio of the mean weight in the darkest to the brightest decile.
    - weight_flat_share: share of images with a CV below `NEARLY_CONSTANT`.
    - loss_dark_share: share of the weighted loss in the darkest decile of pixels.
    - bias_db: mean of reconstruction minus target, dB.

    Over all bands:

    - explained_variance: 1 - weighted error / weighted error of predicting 0; 0 for a model that
      predicts the mean, and well below 1 for any model because of speckle.

    Args:
      batch: input of the model.
      result: its reconstruction.
      settings: settings of the preprocessing, for the statistics.
      bands: names of the bands.
      side: side of a mask unit, pixels.
    """
    measured = jnp.where(batch.valid, batch.images, jnp.nan)
    weights = jnp.where(batch.valid, batch.weights, jnp.nan)
    error = unpatchify(result.error, side, len(bands))
    low, _ = _deciles(measured)
    cv, dark_bright = contrast(batch)
    prediction = restored_images(result, side, len(bands))
    target = jnp.where(unpatchify(result.valid, side, len(bands)), batch.target, jnp.nan)
    bias = jnp.nanmean(prediction - target, (0, *PIXELS)) * jnp.array(settings.std)
    per_band = {
        "weight_cv": jnp.nanmedian(cv, 0),
        "weight_p05": jnp.nanpercentile(weights, 5.0, axis=(0, *PIXELS)),
        "weight_p95": jnp.nanpercentile(weights, 95.0, axis=(0, *PIXELS)),
        "weight_dark_bright": jnp.nanmedian(dark_bright, 0),
        "weight_flat_share": flat_fraction(cv),
        "loss_dark_share": jnp.where(measured <= low, error, 0.0).sum((0, *PIXELS))
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


def constant_weights_warning(variations: Mapping[str, float]) -> str | None:
    """Return a warning about the bands whose weights are nearly constant; None without any.

    Args:
      variations: coefficient of variation of the weights in the median image, by band.
    """
    constant = {band: cv for band, cv in variations.items() if cv < NEARLY_CONSTANT}
    if not constant:
        return None
    values = ", ".join(f"{cv:.3f} in {band}" for band, cv in constant.items())
    return (
        "The loss weights are nearly constant: their median coefficient of variation is "
        f"{values}, below {NEARLY_CONSTANT:g}, which trains like weighting=none; see "
        "docs/method.md for robust forms."
    )


def _deciles(images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the first and the last decile of the pixels of every image and band, NaN ignored."""
    low, high = jnp.nanpercentile(images, jnp.array([10.0, 90.0]), axis=PIXELS, keepdims=True)
    return low, high
