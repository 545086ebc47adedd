"""Errors of a batch of reconstructions, as sums that can be added over batches."""

import dataclasses
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.models.masking import patchify, random_mask, unit_moments, unpatchify
from sar_mixmae_jax.objectives.preprocess import RESIZE_MODES, preprocess, resize_labels
from sar_mixmae_jax.objectives.radiometry import destandardise
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, reconstruct, restored_images
from sar_mixmae_jax.objectives.speckle_filter import NO_FILTER

ESTIMATES = ("model", "null", "measured")
"""Estimates that are compared with the ground truth: the model, a prediction of 0, the input."""

EDGES_DB = (-24.0, -18.0, -12.0, -6.0)
"""Edges between the bins of true intensity."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Settings that must be equal for all compared models, besides the batches.

    Attributes:
      bands: names of the bands.
      classes: names of the land-cover classes; () without a map.
      masks: number of random masks per batch.
      seed: random seed of the masks.
      edges: between the bins of true intensity, dB.
    """

    bands: tuple[str, ...]
    classes: tuple[str, ...] = ()
    masks: int = 4
    seed: int = 0
    edges: tuple[float, ...] = EDGES_DB

    @property
    def bins(self) -> tuple[str, ...]:
        """Names of the bins; a bin includes its lower edge."""
        inner = [f"{low:g} to {high:g} dB" for low, high in pairwise(self.edges)]
        return (f"below {self.edges[0]:g} dB", *inner, f"from {self.edges[-1]:g} dB")


class Batch(NamedTuple):
    """Records of a split as they are stored.

    Attributes:
      backscatter: (batch, height, width, band) dB, NaN = nodata.
      noise_free: (batch, height, width, band) dB without speckle and noise; None if unknown.
      land_cover: (batch, height, width) index of a class; None if unknown.
    """

    backscatter: np.ndarray
    noise_free: np.ndarray | None = None
    land_cover: np.ndarray | None = None


class ErrorSums(NamedTuple):
    """Sums over the pixels of every image and over the masks; groups are bins, then classes.

    Attributes:
      error: (batch,) of (prediction - target)²; the target is the measured image, normalised if
        the objective does so, and the prediction in the same form.
      null_error: (batch,) of (0 - target)².
      band_error: (batch,) of (mean of the band in the mask unit - target)².
      truth_error: (batch,) of (truth + mean of speckle in dB - target)², of (0 - target)² where the
        truth is unknown.
      values: (batch,) number of values of both.
      squares: (batch, estimate, group, band) of (estimate - truth)², dB².
      biases: (batch, estimate, group, band) of estimate - truth, dB.
      pixels: (batch, group, band) number of pixels of both.
    """

    error: Any
    null_error: Any
    band_error: Any
    truth_error: Any
    values: Any
    squares: Any
    biases: Any
    pixels: Any


@partial(jax.jit, static_argnames=("objective", "protocol"))
def batch_error_sums(
    params: Any,
    backscatter: jax.Array,
    noise_free: jax.Array | None,
    land_cover: jax.Array | None,
    key: jax.Array,
    objective: PretrainObjective,
    protocol: Protocol,
) -> ErrorSums:
    """Return the error sums of a batch.

    Args:
      params: parameters of the model.
      backscatter: (batch, height, width, band) dB, NaN = nodata.
      noise_free: the same shape, without speckle and noise; None: no sums in dB.
      land_cover: (batch, height, width) index of a class, or None.
      key: key of the masks.
      objective: without flips, with weighting "none".
      protocol: bands, classes, masks.
    """
    settings, model = objective.preprocessing, objective.model
    size, cell, bands = settings.image_size, model.arch.mask_unit, len(protocol.bands)
    batch = preprocess(backscatter, key, settings)
    raw = preprocess(backscatter, key, dataclasses.replace(settings, speckle=NO_FILTER))
    truth = jnp.full_like(batch.images, jnp.nan)
    if noise_free is not None:
        truth = RESIZE_MODES[settings.resize_mode](noise_free.astype(jnp.float32), size)
    known = batch.valid & jnp.isfinite(truth)
    truth = jnp.where(known, truth, 0.0)
    mean, std = jnp.array(settings.mean), jnp.array(settings.std)
    target = patchify(raw.target, cell)
    offset, spread = jnp.zeros(()), jnp.ones(())
    if objective.norm_pix_loss:
        offset, spread = unit_moments(target, patchify(raw.valid, cell))
    null = jnp.broadcast_to(offset, target.shape)
    band_means = patchify(unit_band_means(raw.target, raw.valid, cell), cell)
    noiseless = jnp.where(known, (truth - mean) / std, 0.0)
    pixels = jnp.maximum(known.sum((0, 1, 2)), 1)
    speckle = jnp.where(known, raw.target - noiseless, 0.0).sum((0, 1, 2)) / pixels  # its mean
    noiseless = patchify(noiseless + speckle, cell)
    groups = jax.nn.one_hot(jnp.digitize(truth, jnp.array(protocol.edges)), len(protocol.bins))
    if land_cover is not None and protocol.classes:
        cover = resize_labels(land_cover, size, settings.resize_mode)[..., None]
        classes = jax.nn.one_hot(jnp.broadcast_to(cover, truth.shape), len(protocol.classes))
        groups = jnp.concatenate([groups, classes], axis=-1)
    groups = jnp.where(known[..., None], groups, 0.0)  # batch, row, column, band, group

    def sums_of_mask(mask_key: jax.Array) -> ErrorSums:
        mask = random_mask(mask_key, model.arch.mask_grid, objective.mask_ratio)
        result = reconstruct(model, params, batch, mask, norm_pix_loss=objective.norm_pix_loss)
        restored = restored_images(result, cell, bands)
        estimates = (restored, unpatchify(null, cell, bands), raw.images)  # order of ESTIMATES
        images = jnp.stack(estimates, axis=1)
        db = destandardise(images, mean, std)
        predicted = unpatchify(result.valid, cell, bands)
        errors = jnp.where((known & predicted)[:, None], db - truth[:, None], 0.0)
        counted = jnp.where(predicted[..., None], groups, 0.0)

        def error_of(estimate: jax.Array) -> jax.Array:
            error = jnp.square((estimate - target) / spread)
            return jnp.where(result.valid, error, 0.0).sum((1, 2))

        sum_groups = partial(jnp.einsum, "behwk,bhwkg->begk", precision="highest")
        return ErrorSums(
            error_of(patchify(restored, cell)),
            error_of(null),
            error_of(band_means),
            error_of(jnp.where(patchify(known, cell), noiseless, null)),
            result.valid.sum((1, 2), dtype=jnp.float32),
            sum_groups(jnp.square(errors), counted),
            sum_groups(errors, counted),
            counted.sum((1, 2)).swapaxes(1, 2),
        )

    sums = jax.lax.map(sums_of_mask, jax.random.split(key, protocol.masks))
    return jax.tree.map(lambda leaf: leaf.sum(0), sums)


def unit_band_means(images: jax.Array, valid: jax.Array, side: int) -> jax.Array:
    """Return images in which every band of a mask unit is the mean of its valid pixels.

    Args:
      images: (batch, height, width, band).
      valid: of the same shape.
      side: side of a mask unit, pixels.
    """

    def unit_sums(array: jax.Array) -> jax.Array:
        return jax.lax.reduce_window(
            array, 0.0, jax.lax.add, (1, side, side, 1), (1, side, side, 1), "VALID"
        )

    counts = unit_sums(valid.astype(images.dtype))
    means = unit_sums(jnp.where(valid, images, 0.0)) / jnp.maximum(counts, 1.0)
    return means.repeat(side, axis=1).repeat(side, axis=2)
