"""Reconstruction errors of one batch, with and without a truth, as sums that can be added up."""

import dataclasses
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sar_mixmae_jax.masking import random_mask
from sar_mixmae_jax.objective import Objective, reconstruct, restored_images
from sar_mixmae_jax.preprocess import preprocess
from sar_mixmae_jax.radiometry import destandardise
from sar_mixmae_jax.spatial import FITS, pad

ESTIMATES = ("model", "null", "measured")
"""What is compared with the truth: the model, a prediction of 0, and the speckled input itself."""

EDGES_DB = (-24.0, -18.0, -12.0, -6.0)
"""Between the bins of true intensity."""


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What must be the same for all models that are compared, besides the batches.

    Attributes:
      bands: names of the bands.
      classes: names of the classes of land cover.
      masks: per batch.
      seed: of the masks.
      edges: between the bins of true intensity, dB.
    """

    bands: tuple[str, ...]
    classes: tuple[str, ...] = ()
    masks: int = 4
    seed: int = 0
    edges: tuple[float, ...] = EDGES_DB

    @property
    def bins(self) -> tuple[str, ...]:
        """Names of the bins; the lower end belongs to a bin."""
        inner = [f"{low:g} to {high:g} dB" for low, high in pairwise(self.edges)]
        return (f"below {self.edges[0]:g} dB", *inner, f"from {self.edges[-1]:g} dB")


class Sums(NamedTuple):
    """Sums over the pixels of every image and over masks; groups are bins, then classes.

    Attributes:
      error: (batch,) of (prediction - target)².
      null_error: (batch,) the same for a prediction of 0.
      values: (batch,) how many.
      squares: (batch, estimate, group, band) of (estimate - truth)², dB².
      biases: the same of estimate - truth, dB.
      pixels: (batch, group, band) how many.
    """

    error: Any
    null_error: Any
    values: Any
    squares: Any
    biases: Any
    pixels: Any


@partial(jax.jit, static_argnames=("objective", "protocol"))
def batch_sums(
    params: Any,
    backscatter: jax.Array,
    noise_free: jax.Array | None,
    land_cover: jax.Array | None,
    key: jax.Array,
    objective: Objective,
    protocol: Protocol,
) -> Sums:
    """The sums of a batch.

    Args:
      params: of the model.
      backscatter: (batch, height, width, band) dB, NaN = nodata.
      noise_free: the same without speckle and noise; without it there are no pixels in dB.
      land_cover: (batch, height, width) index of a class, or None.
      key: of the masks.
      objective: without flips, weighting `none`.
      protocol: bands, classes, masks.
    """
    settings, model = objective.preprocessing, objective.model
    size, cell, bands = settings.image_size, model.size.cell, len(protocol.bands)
    batch = preprocess(backscatter, key, settings)
    truth = jnp.full_like(batch.images, jnp.nan)
    if noise_free is not None:
        truth = FITS[settings.fit](noise_free.astype(jnp.float32), size)
    known = batch.valid & jnp.isfinite(truth)
    truth = jnp.where(known, truth, 0.0)
    groups = jax.nn.one_hot(jnp.digitize(truth, jnp.array(protocol.edges)), len(protocol.bins))
    if land_cover is not None and protocol.classes:
        cover = fit_classes(land_cover, size, settings.fit)[..., None]
        classes = jax.nn.one_hot(jnp.broadcast_to(cover, truth.shape), len(protocol.classes))
        groups = jnp.concatenate([groups, classes], axis=-1)
    groups = jnp.where(known[..., None], groups, 0.0)  # batch, row, column, band, group

    def of_mask(mask_key: jax.Array) -> Sums:
        mask = random_mask(mask_key, model.size.grid, objective.mask_ratio)
        result = reconstruct(model, params, batch, mask, norm_pix=objective.norm_pix)
        nothing = result._replace(prediction=jnp.zeros_like(result.prediction))
        restored = [restored_images(one, cell, bands) for one in (result, nothing)]
        images = jnp.stack([*restored, batch.images], axis=1)  # as ESTIMATES
        db = destandardise(images, jnp.array(settings.mean), jnp.array(settings.std))
        apart = jnp.where(known[:, None], db - truth[:, None], 0.0)
        sum_groups = partial(jnp.einsum, "behwk,bhwkg->begk", precision="highest")
        return Sums(
            result.error.sum((1, 2)),
            result.null_error.sum((1, 2)),
            result.valid.sum((1, 2), dtype=jnp.float32),
            sum_groups(jnp.square(apart), groups),
            sum_groups(apart, groups),
            groups.sum((1, 2)).swapaxes(1, 2),
        )

    each = jax.lax.map(of_mask, jax.random.split(key, protocol.masks))
    return jax.tree.map(lambda leaf: leaf.sum(0), each)


def fit_classes(land_cover: jax.Array, size: int, fit: str) -> jax.Array:
    """Brings a map of classes to the model's input size as `spatial.FITS` does images.

    Args:
      land_cover: (batch, height, width) index of a class.
      size: side of the input in pixels.
      fit: "resize" takes the nearest pixel; "pad" surrounds it with -1, no class.
    """
    if fit == "pad":
        padded = pad(land_cover[..., None].astype(jnp.float32), size)[..., 0]
        return jnp.where(jnp.isfinite(padded), padded, -1).astype(jnp.int32)
    shape = (len(land_cover), size, size)
    return jax.image.resize(land_cover.astype(jnp.int32), shape, method="nearest")
