"""What stands on the encoder: a classifier of an image, and one of the change between two dates.

Both make features first, (batch, width), and logits by one linear layer of them; so whatever is
done with the features of one (probing, neighbours, embedding) is done with those of the other.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sar_mixmae_jax.cells import patchify
from sar_mixmae_jax.drop_path import branch_factors
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.layers import matmul_precision
from sar_mixmae_jax.mixmae import Architecture, make_encoder

HEAD_INITS = {
    "tiny": nn.initializers.normal(2e-5),  # as published, on a pretrained encoder
    "xavier": nn.initializers.xavier_uniform(),  # as published, without one
}
"""How the weights of a linear head start; a tiny one teaches the encoder nothing at first."""


@dataclasses.dataclass(frozen=True)
class Votes:
    """How neighbours vote.

    Attributes:
      records: in the memory.
      neighbours: that vote.
      temperature: of the weight of a vote by its cosine similarity.
      exclusive: whether a record has exactly one class.
    """

    records: int
    neighbours: int
    temperature: float
    exclusive: bool


class Neighbours(nn.Module):
    """A head without training: the nearest records of a memory vote for their labels.

    Its parameters are the memory: (records, width) features of length 1, (records, classes) labels.
    """

    votes: Votes
    outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(batch, width) -> (batch, outputs) logits of the share of the votes."""
        votes, nothing = self.votes, nn.initializers.zeros
        memory = self.param("features", nothing, (votes.records, features.shape[-1]))
        labels = self.param("labels", nothing, (votes.records, self.outputs))
        likeness = jnp.matmul(unit_length(features), memory.T, precision="highest")
        nearest, which = jax.lax.top_k(likeness, min(votes.neighbours, votes.records))
        weights = nn.softmax(nearest / votes.temperature)
        share = jnp.einsum("bn,bnc->bc", weights, labels[which], precision="highest")
        share = jnp.clip(share, LEAST_SHARE, 1 - LEAST_SHARE)
        return jnp.log(share) if votes.exclusive else jnp.log(share) - jnp.log1p(-share)


def vote(votes: Votes, params: dict[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """(records, classes) logits of (records, width) features, by the memory in `params`."""
    head = Neighbours(votes, params["labels"].shape[1])
    apply = jax.jit(head.apply)
    parts = [features[first : first + AT_ONCE] for first in range(0, len(features), AT_ONCE)]
    return np.concatenate([np.asarray(apply({"params": params}, part)) for part in parts])


def unit_length(features: jax.Array) -> jax.Array:
    """(batch, width) scaled to length 1; what is 0 stays 0."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, 1e-12)


class Tuned(nn.Module):
    """An encoder with a head; what an image is to it, its subclasses say.

    Attributes:
      size: of the encoder.
      outputs: logits.
      dtype: of the computation; parameters and logits are float32.
      remat: recompute blocks in the backward pass.
      drop_path: highest rate at which branches of blocks are left out in training.
      head_init: an entry of `HEAD_INITS`.
      votes: how neighbours vote, in place of a linear head.
    """

    size: Architecture
    outputs: int
    dtype: DTypeLike = jnp.float32
    remat: bool = False
    drop_path: float = 0.0
    head_init: str = "tiny"
    votes: Votes | None = None

    def setup(self) -> None:
        """Makes encoder and head."""
        self.encoder = make_encoder(self.size, self.dtype, self.remat)
        if self.votes is not None:
            self.head: nn.Module = Neighbours(self.votes, self.outputs)
            return
        self.head = nn.Dense(
            self.outputs,
            dtype=jnp.float32,
            precision=matmul_precision(jnp.float32),
            kernel_init=HEAD_INITS[self.head_init],
        )

    def pool(self, images: jax.Array, key: jax.Array | None) -> jax.Array:
        """(batch, height, width, band) standardised -> (batch, width) float32: the mean token.

        With a key, branches are left out at random.
        """
        keep = None
        if key is not None and self.drop_path:
            keep = branch_factors(key, self.drop_path, self.size.blocks, len(images))
        return self.encoder(images, None, keep).astype(jnp.float32).mean((1, 2))


LEAST_SHARE = 1e-4
"""Of the votes, so that logits are finite."""
AT_ONCE = 1024
"""Records that are compared with the whole memory."""


class Classifier(Tuned):
    """Labels of an image."""

    def features(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, band) standardised -> (batch, width)."""
        return self.pool(image, key)

    def __call__(self, image: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """(batch, height, width, band) standardised -> (batch, outputs) logits."""
        return self.head(self.features(image, key))


class FloodDetector(Tuned):
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
        tiles = [TILINGS[self.tiling](image, self.size.image_size) for image in (before, after)]
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
        rows = before.shape[1] // self.size.image_size
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
