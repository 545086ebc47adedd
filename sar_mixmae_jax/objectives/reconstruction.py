"""Pretraining objective: the weighted reconstruction error of mask units, unreduced."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.models.masking import patchify, random_mask, unit_moments, unpatchify
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.models.simmim import SimMIM
from sar_mixmae_jax.objectives.preprocess import PreparedBatch, Preprocessing, preprocess


def weighted_squared_error(
    prediction: jax.Array, target: jax.Array, weights: jax.Array
) -> jax.Array:
    """Return weights * (prediction - target)², element by element; the arrays have equal shapes.

    Raises:
      ValueError: the shapes differ.
    """
    if not prediction.shape == target.shape == weights.shape:
        raise ValueError(
            f"prediction {prediction.shape}, target {target.shape} and weights {weights.shape}: "
            "expected equal shapes"
        )
    return weights * jnp.square(prediction - target)


OBJECTIVES: dict[str, type[MixMAE] | type[SimMIM]] = {"mixmae": MixMAE, "simmim": SimMIM}
"""Pretraining models by `config.objective`."""


@dataclasses.dataclass(frozen=True)
class PretrainObjective:
    """Model and loss of pretraining.

    Attributes:
      model: model of the pretraining, see `OBJECTIVES`.
      preprocessing: preprocessing of the raw batch.
      mask_ratio: float, share of mask units that come from the partner image, or are hidden.
      norm_pix_loss: bool, whether each target mask unit is standardised by its own moments.
    """

    model: MixMAE | SimMIM
    preprocessing: Preprocessing
    mask_ratio: float
    norm_pix_loss: bool


def pretrain_loss(
    params: Any, batch: dict[str, jax.Array], key: jax.Array, objective: PretrainObjective
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the summed weighted error of a microbatch, and what it is averaged over.

    Args:
      params: parameters of the model.
      batch: "backscatter", (batch, height, width, band) in the unit of the preprocessing.
      key: key of flips and mask.
      objective: model and loss.

    Returns:
      (error, (count, errors)): the summed error, the number of valid values, and the (batch,)
      error of each image. The caller divides by the counts of all microbatches.
    """
    flip_key, mask_key = jax.random.split(key)
    prepared = preprocess(batch["backscatter"], flip_key, objective.preprocessing)
    model = objective.model
    mask = random_mask(mask_key, model.arch.mask_grid, objective.mask_ratio)
    result = reconstruct(model, params, prepared, mask, norm_pix_loss=objective.norm_pix_loss)
    errors = result.error.sum((1, 2))  # (batch,)
    return errors.sum(), (result.valid.sum().astype(jnp.float32), errors)


class Reconstruction(NamedTuple):
    """Reconstruction of a batch by mask units, arrays (batch, units, values) unless noted.

    Attributes:
      prediction: output of the decoder.
      error: weight * (prediction - target)², 0 at nodata and in units that the encoder saw.
      null_error: the same for a prediction of 0, which is the mean of the unit if targets are
        normalised, else the mean of the dataset.
      valid: bool, True where measured and predicted unseen.
      offset: mean subtracted from the target, (batch, units, 1); scalar 0 if not normalised.
      spread: deviation the target was divided by, (batch, units, 1); scalar 1 if not normalised.
    """

    prediction: jax.Array
    error: jax.Array
    null_error: jax.Array
    valid: jax.Array
    offset: jax.Array
    spread: jax.Array


def restored_images(result: Reconstruction, side: int, bands: int) -> jax.Array:
    """Return the prediction as standardised images (batch, height, width, band).

    With normalised targets, every unit is scaled by the mean and deviation of its own target.

    Args:
      result: of `reconstruct`.
      side: side of a mask unit, pixels.
      bands: number of bands.
    """
    return unpatchify(result.prediction * result.spread + result.offset, side, bands)


def reconstruct(
    model: MixMAE | SimMIM,
    params: Any,
    batch: PreparedBatch,
    mask: jax.Array,
    *,
    norm_pix_loss: bool,
) -> Reconstruction:
    """Apply the model and compare its prediction with the target.

    Args:
      model: model of the pretraining.
      params: its parameters.
      batch: the prepared images.
      mask: (units, units), 1 where a mask unit comes from the partner image.
      norm_pix_loss: standardise every target unit by its own mean and deviation, bands together.
    """
    side = model.arch.mask_unit
    prediction = model.apply({"params": params}, batch.images, mask)
    assert isinstance(prediction, jax.Array)
    target = patchify(batch.target, side)  # batch, units, values
    valid = patchify(batch.valid, side)
    if norm_pix_loss:
        offset, spread = unit_moments(target, valid)
    else:
        offset, spread = jnp.zeros(()), jnp.ones(())
    target = (target - offset) / spread
    weights = patchify(batch.weights, side)
    predicted = model.predicted_units(mask)
    if predicted is not None:
        weights, valid = jnp.where(predicted, weights, 0.0), valid & predicted
    error = weighted_squared_error(prediction, target, weights)
    null_error = weighted_squared_error(jnp.zeros_like(target), target, weights)
    return Reconstruction(prediction, error, null_error, valid, offset, spread)
