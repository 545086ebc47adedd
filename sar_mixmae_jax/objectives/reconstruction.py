"""Losses, unreduced: who averages decides over what."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.models.masking import cell_moments, patchify, random_mask, unpatchify
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.objectives.preprocess import PreparedBatch, Preprocessing, preprocess


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


@dataclasses.dataclass(frozen=True)
class PretrainObjective:
    """What a model is trained for.

    Attributes:
      model: the MixMAE.
      preprocessing: what happens to the raw batch.
      mask_ratio: share of cells that come from the partner image.
      norm_pix_loss: whether target cells are standardised one by one.
    """

    model: MixMAE
    preprocessing: Preprocessing
    mask_ratio: float
    norm_pix_loss: bool


def pretrain_loss(
    params: Any, batch: dict[str, jax.Array], key: jax.Array, objective: PretrainObjective
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The summed weighted error of a share, with its number of valid pixels and error by patch."""
    flip_key, mask_key = jax.random.split(key)
    prepared = preprocess(batch["backscatter"], flip_key, objective.preprocessing)
    model, norm_pix_loss = objective.model, objective.norm_pix_loss
    mask = random_mask(mask_key, model.arch.mask_grid, objective.mask_ratio)
    error = reconstruct(model, params, prepared, mask, norm_pix_loss=norm_pix_loss).error.sum(
        (1, 2)
    )
    return error.sum(), (prepared.valid.sum().astype(jnp.float32), error)


class Reconstruction(NamedTuple):
    """What the model made of a batch, in cells: (batch, cells, values) unless said otherwise.

    Attributes:
      prediction: the decoder's output for every cell.
      error: w (prediction - target)², 0 at nodata.
      null_error: the same for a prediction of 0: the mean of the cell with normalised targets, of
        the dataset without.
      valid: True where measured.
      offset: what normalising the target subtracted: (batch, cells, 1), or a 0 without.
      spread: what normalising the target divided by: (batch, cells, 1), or a 1 without.
    """

    prediction: jax.Array
    error: jax.Array
    null_error: jax.Array
    valid: jax.Array
    offset: jax.Array
    spread: jax.Array


def restored_images(result: Reconstruction, side: int, bands: int) -> jax.Array:
    """The prediction as standardised images (batch, height, width, band).

    With normalised targets every cell gets its target's own mean and deviation back.
    """
    return unpatchify(result.prediction * result.spread + result.offset, side, bands)


def reconstruct(
    model: MixMAE, params: Any, batch: PreparedBatch, mask: jax.Array, *, norm_pix_loss: bool
) -> Reconstruction:
    """Runs the model and compares with the target.

    Args:
      model: the MixMAE.
      params: its parameters.
      batch: the prepared images.
      mask: (cells, cells), 1 where a cell comes from the partner image.
      norm_pix_loss: standardise every target cell by its own mean and deviation, bands together.
    """
    side = model.arch.mask_unit
    prediction = model.apply({"params": params}, batch.images, mask)
    assert isinstance(prediction, jax.Array)
    target = patchify(batch.images, side)
    valid = patchify(batch.valid, side)
    if norm_pix_loss:
        offset, spread = cell_moments(target, valid)
    else:
        offset, spread = jnp.zeros(()), jnp.ones(())
    target = (target - offset) / spread
    weights = patchify(batch.weights, side)
    error = weighted_squared_error(prediction, target, weights)
    null_error = weighted_squared_error(jnp.zeros_like(target), target, weights)
    return Reconstruction(prediction, error, null_error, valid, offset, spread)
