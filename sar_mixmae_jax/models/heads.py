"""Models of downstream tasks: a classifier of images, and a detector of change between two dates.

Both compute features (batch, width) with the encoder and logits from them with one linear layer, so
that probing, nearest neighbours and embedding apply to both alike.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.architecture import Architecture, KNNConfig
from sar_mixmae_jax.models.initialisers import normal, xavier_uniform
from sar_mixmae_jax.models.knn import KNNHead
from sar_mixmae_jax.models.layers import PLAIN, Kernels, drop_path_factors, matmul_precision
from sar_mixmae_jax.models.masking import patchify
from sar_mixmae_jax.models.swin import make_encoder
from sar_mixmae_jax.utils.errors import InputError

HEAD_INITS = {
    "tiny": normal(2e-5),  # as published, for a pretrained encoder
    "xavier": xavier_uniform(),  # as published, for a random encoder
}
"""Initialisers of a linear head; with `tiny`, gradients of the encoder are small at first."""


STAGES = ("last", "all")
"""Stages of the encoder whose mean tokens are the features of an image."""


class DownstreamModel(nn.Module):
    """Encoder with a head; subclasses define the inputs.

    Attributes:
      arch: architecture of the encoder.
      outputs: int, number of logits.
      dtype: dtype of the computation; parameters, features and logits are float32.
      remat: activations that blocks keep for the backward pass, an entry of `layers.REMAT`.
      drop_path: rate of drop path in the last block, in training; see `layers.drop_path_factors`.
      head_init: an entry of `HEAD_INITS`.
      votes: settings of a nearest-neighbour head; None for a linear head.
      kernels: functions for attention and LayerNorm of the blocks.
      stages: an entry of `STAGES`.
    """

    arch: Architecture
    outputs: int
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    drop_path: float = 0.0
    head_init: str = "tiny"
    votes: KNNConfig | None = None
    kernels: Kernels = PLAIN
    stages: str = STAGES[0]

    def setup(self) -> None:
        """Create encoder and head."""
        self.encoder = make_encoder(self.arch, self.dtype, self.remat, self.kernels)
        if self.votes is not None:
            self.head: nn.Module = KNNHead(self.votes, self.outputs)
            return
        self.head = nn.Dense(
            self.outputs,
            dtype=jnp.float32,
            precision=matmul_precision(jnp.float32),
            kernel_init=HEAD_INITS[self.head_init],
        )

    def tokens(self, images: jax.Array) -> jax.Array:
        """Return the tokens of standardised images, (batch, row, column, width) float32."""
        return self.encoder(images).astype(jnp.float32)

    def pool(self, images: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the mean tokens of images, of the `stages` side by side: (batch, width) float32.

        Args:
          images: (batch, height, width, band), standardised.
          key: for drop path in training, or None.
        """
        keep = None
        if key is not None and self.drop_path:
            keep = drop_path_factors(key, self.drop_path, self.arch.num_blocks, len(images))
        maps = self.encoder.stages(images, None, keep)
        pooled = maps if self.stages == "all" else maps[-1:]
        means = [tokens.astype(jnp.float32).mean((1, 2)) for tokens in pooled]
        return jnp.concatenate(means, axis=-1)


class Classifier(DownstreamModel):
    """Classifier of single images."""

    def features(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return (batch, width) features of standardised images, see `pool`."""
        return self.pool(image, key)

    def __call__(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return (batch, outputs) logits of standardised images, see `pool`."""
        return self.head(self.features(image, key))


class FloodDetector(DownstreamModel):
    """Detector of a flood on the second of two dates, from the change of separately encoded tiles.

    Attributes:
      tiling: an entry of `TILINGS`, the cut of an image into inputs of the encoder.
      pooling: an entry of `POOLINGS`, of the changes of all tiles.
    """

    tiling: str = "spatial"
    pooling: str = "mean"

    def changes(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """Return the absolute differences of the features of every tile, and which tiles count.

        Args:
          before: (batch, height, width, band), standardised, 0 at nodata.
          after: the same of the later date.
          key: for drop path in training, or None.

        Returns:
          (batch, tiles, width) float32, and (batch, tiles) bool: False where nothing of a tile was
          measured on either date.
        """
        tiles = [TILINGS[self.tiling](image, self.arch.image_size) for image in (before, after)]
        batch, count = tiles[0].shape[:2]
        both = jnp.concatenate(tiles).reshape(-1, *tiles[0].shape[2:])  # dates * batch * tiles, …
        pooled = self.pool(both, key).reshape(2, batch, count, -1)
        known = (tiles[0] != 0).any((2, 3, 4)) | (tiles[1] != 0).any((2, 3, 4))
        return jnp.abs(pooled[0] - pooled[1]), known

    def features(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Return (batch, width) pooled changes between two dates, see `changes`."""
        return POOLINGS[self.pooling](*self.changes(before, after, key))

    def __call__(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """Return (batch, outputs) logits of two dates, see `changes`."""
        return self.head(self.features(before, after, key))

    def evidence(self, before: jax.Array, after: jax.Array) -> jax.Array:
        """Return a map of the logit of "flood" minus that of "dry", one value per tile.

        Defined for tiling "spatial" and pooling "mean": the mean of the map over the measured tiles
        is the difference of the two logits of the image.

        Returns:
          (batch, tile row, tile column) float32, NaN where nothing was measured.
        """
        rows = before.shape[1] // self.arch.image_size
        changes, known = self.changes(before, after)
        logits = self.head(changes)
        difference = jnp.where(known, logits[..., 1] - logits[..., 0], jnp.nan)
        return difference.reshape(len(before), rows, -1)


def spatial_tiles(image: jax.Array, side: int) -> jax.Array:
    """Return (batch, tiles, side, side, band) of (batch, height, width, band), row by row."""
    tiles = patchify(image, side)
    return tiles.reshape(*tiles.shape[:2], side, side, image.shape[-1])


def released_tiles(image: jax.Array, side: int) -> jax.Array:
    """Return tiles as the published code cuts them, each of two neighbouring tiles of one band.

    The published code reshapes (band, row, column) to pairs without transposing: of 16 tiles in two
    bands, 8 hold VH twice and 8 VV twice. For the published SEN12-FLOOD checkpoint only; same
    arguments and shapes as `spatial_tiles`.
    """
    tiles = spatial_tiles(image, side)  # batch, tile, row, column, band
    batch, count, *_, bands = tiles.shape
    paired = jnp.moveaxis(tiles, -1, 1).reshape(batch, count, bands, side, side)
    return jnp.moveaxis(paired, 2, -1)  # batch, tile, row, column, one band twice


TILINGS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "spatial": spatial_tiles,
    "released": released_tiles,
}
"""Functions that cut an image into inputs of the encoder: (image, side) -> tiles."""


def mean_change(changes: jax.Array, known: jax.Array) -> jax.Array:
    """Return the mean change, (batch, width), over the known tiles; see `FloodDetector.changes`."""
    weights = known[..., None].astype(changes.dtype)
    return (changes * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def largest_change(changes: jax.Array, known: jax.Array) -> jax.Array:
    """Return the largest change, (batch, width), of the known tiles, per channel."""
    return jnp.where(known[..., None], changes, 0.0).max(1)


POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "mean": mean_change,
    "max": largest_change,
}
"""Functions that pool the changes of all tiles: (changes, known) -> (batch, width)."""


def check_tiles(size: int, tile: int) -> None:
    """Raise unless whole tiles fill an image.

    Args:
      size: side of the image, pixels.
      tile: side of a tile, pixels.

    Raises:
      InputError: the image cannot be cut into such tiles.
    """
    if size % tile or size < tile:
        raise InputError(
            f"found images of {size}x{size} px and tiles of {tile} px (model.image_size), expected "
            "whole tiles: build the dataset in another size"
        )
