"""What stands on the encoder: a classifier of an image, and one of the change between two dates.

Both make features first, (batch, width), and logits by one linear layer of them; so whatever is
done with the features of one (probing, neighbours, embedding) is done with those of the other.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.knn import KNNConfig, KNNHead
from sar_mixmae_jax.models.layers import drop_path_factors, matmul_precision
from sar_mixmae_jax.models.masking import patchify
from sar_mixmae_jax.models.mixmae import make_encoder
from sar_mixmae_jax.utils.errors import InputError

HEAD_INITS = {
    "tiny": nn.initializers.normal(2e-5),  # as published, on a pretrained encoder
    "xavier": nn.initializers.xavier_uniform(),  # as published, without one
}
"""How the weights of a linear head start; a tiny one teaches the encoder nothing at first."""


class DownstreamModel(nn.Module):
    """An encoder with a head; what an image is to it, its subclasses say.

    Attributes:
      arch: of the encoder.
      outputs: logits.
      dtype: of the computation; parameters and logits are float32.
      remat: recompute blocks in the backward pass.
      drop_path: highest rate at which branches of blocks are left out in training.
      head_init: an entry of `HEAD_INITS`.
      votes: how neighbours vote, in place of a linear head.
    """

    arch: Architecture
    outputs: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    drop_path: float = 0.0
    head_init: str = "tiny"
    votes: KNNConfig | None = None

    def setup(self) -> None:
        """Makes encoder and head."""
        self.encoder = make_encoder(self.arch, self.dtype, self.remat)
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
        """(batch, height, width, band) standardised -> (batch, width) float32: the mean token.

        With a key, branches are left out at random.
        """
        keep = None
        if key is not None and self.drop_path:
            keep = drop_path_factors(key, self.drop_path, self.arch.num_blocks, len(images))
        return self.encoder(images, None, keep).astype(jnp.float32).mean((1, 2))


class Classifier(DownstreamModel):
    """Labels of an image."""

    def features(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, band) standardised -> (batch, width)."""
        return self.pool(image, key)

    def __call__(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, band) standardised -> (batch, outputs) logits."""
        return self.head(self.features(image, key))


class FloodDetector(DownstreamModel):
    """Whether the second of two dates is flooded: the change of tiles, each encoded by itself.

    Attributes:
      tiling: an entry of `TILINGS`.
      pooling: an entry of `POOLINGS`, over the tiles.
    """

    tiling: str = "spatial"
    pooling: str = "mean"

    def changes(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """(batch, height, width, band) of two dates -> (batch, tiles, width) |difference|.

        And (batch, tiles) whether anything of a tile was measured: else it is 0 throughout.
        """
        tiles = [TILINGS[self.tiling](image, self.arch.image_size) for image in (before, after)]
        batch, count = tiles[0].shape[:2]
        both = jnp.concatenate(tiles).reshape(-1, *tiles[0].shape[2:])
        pooled = self.pool(both, key).reshape(2, batch, count, -1)
        known = (tiles[0] != 0).any((2, 3, 4)) | (tiles[1] != 0).any((2, 3, 4))
        return jnp.abs(pooled[0] - pooled[1]), known

    def features(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """(batch, height, width, band) of two dates -> (batch, width)."""
        return POOLINGS[self.pooling](*self.changes(before, after, key))

    def __call__(
        self, before: jax.Array, after: jax.Array, key: jax.Array | None = None
    ) -> jax.Array:
        """(batch, height, width, band) of two dates -> (batch, outputs) logits."""
        return self.head(self.features(before, after, key))

    def evidence(self, before: jax.Array, after: jax.Array) -> jax.Array:
        """(batch, row of tiles, column of tiles) logit of the flood minus that of its absence.

        Only for spatial tiles and their mean, where the mean of this map over the tiles that were
        measured is the difference of the logits of the image. 0 where nothing was measured.
        """
        rows = before.shape[1] // self.arch.image_size
        changes, known = self.changes(before, after)
        logits = self.head(changes)
        apart = jnp.where(known, logits[..., 1] - logits[..., 0], 0.0)
        return apart.reshape(len(before), rows, -1)


def spatial_tiles(image: jax.Array, side: int) -> jax.Array:
    """(batch, height, width, band) -> (batch, tiles, side, side, band), row by row."""
    cells = patchify(image, side)
    return cells.reshape(*cells.shape[:2], side, side, image.shape[-1])


def released_tiles(image: jax.Array, side: int) -> jax.Array:
    """Tiles as the published code cuts them: each holds two neighbouring tiles of one band.

    It flattens (band, row, column) into pairs without a permutation: of 16 tiles in two bands, 8
    hold VH twice and 8 VV twice. For the published checkpoint of SEN12-FLOOD alone.
    """
    tiles = spatial_tiles(image, side)  # batch, tile, row, column, band
    batch, count, *_, bands = tiles.shape
    of_one_band = jnp.moveaxis(tiles, -1, 1).reshape(batch, count, bands, side, side)
    return jnp.moveaxis(of_one_band, 2, -1)


TILINGS: dict[str, Callable[[jax.Array, int], jax.Array]] = {
    "spatial": spatial_tiles,
    "released": released_tiles,
}
"""Ways to cut an image into what the encoder sees."""


def mean_change(changes: jax.Array, known: jax.Array) -> jax.Array:
    """(batch, tiles, width) and (batch, tiles) -> (batch, width) mean over the known tiles."""
    weights = known[..., None].astype(changes.dtype)
    return (changes * weights).sum(1) / jnp.maximum(weights.sum(1), 1.0)


def largest_change(changes: jax.Array, known: jax.Array) -> jax.Array:
    """(batch, tiles, width) and (batch, tiles) -> (batch, width) largest of the known tiles."""
    return jnp.where(known[..., None], changes, 0.0).max(1)


POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "mean": mean_change,
    "max": largest_change,
}
"""Ways to make one change of those of all tiles."""


def check_tiles(size: int, tile: int) -> None:
    """Refuses images that tiles do not fill.

    Raises:
      InputError: names both sizes.
    """
    if size % tile or size < tile:
        raise InputError(
            f"found images of {size}x{size} px and tiles of {tile} px (model.image_size), expected "
            "whole tiles: build the dataset in another size"
        )
