"""Segmentation of images: the encoder on tiles, and a feature pyramid over the maps of its stages.

The encoder's windows never cross a border of its input size, so images of any number of tiles are
encoded tile by tile, as in pretraining, and the maps of all tiles are put together before the
decoder, whose convolutions cross the borders.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.heads import HEAD_INITS, DownstreamModel, spatial_tiles
from sar_mixmae_jax.models.layers import (
    drop_path_factors,
    layer_norm,
    linear,
    matmul_precision,
)
from sar_mixmae_jax.models.swin import make_encoder

COMBINATIONS = ("concatenate", "difference")
"""Features of two dates: those of both, or those of the second minus those of the first."""


class FeaturePyramid(nn.Module):
    """Decoder: maps of all stages are added from the coarsest to the finest, smoothed and summed.

    The feature pyramid network of Lin et al. (CVPR 2017) with the head of Kirillov et al. (CVPR
    2019), but with LayerNorm over the channels of a pixel: nothing depends on the batch or on the
    size of the image.

    Attributes:
      outputs: int, number of logits.
      width: int, channels of the pyramid.
      dtype: dtype of the computation; logits are float32.
      head_init: an entry of `HEAD_INITS`, of the last layer.
    """

    outputs: int
    width: int
    dtype: DTypeLike
    head_init: str = "tiny"

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Return logits on the grid of the first map, (batch, row, column, outputs) float32.

        Args:
          maps: (batch, row, column, channel), each with half the rows and columns of the one
            before.
        """
        lateral = [
            linear(self.width, self.dtype, name=f"lateral_{stage}")(
                layer_norm(self.dtype, name=f"norm_{stage}")(features)
            )
            for stage, features in enumerate(maps)
        ]
        size = maps[0].shape[1:3]
        x, total = lateral[-1], jnp.float32(0)
        for stage in reversed(range(len(lateral))):
            if stage < len(lateral) - 1:
                x = lateral[stage] + resize_map(x, lateral[stage].shape[1:3])
            smooth = nn.Conv(
                self.width,
                (3, 3),
                dtype=self.dtype,
                precision=matmul_precision(self.dtype),
                name=f"smooth_{stage}",
            )(x)
            smooth = nn.gelu(layer_norm(self.dtype, name=f"smooth_norm_{stage}")(smooth))
            total = total + resize_map(smooth, size)
        return nn.Dense(
            self.outputs,
            dtype=jnp.float32,
            precision=matmul_precision(jnp.float32),
            kernel_init=HEAD_INITS[self.head_init],
            name="classify",
        )(total)


class LinearPixelHead(nn.Module):
    """Linear layer on the features of all stages at a token of the first: a probe of the encoder.

    Attributes:
      outputs: int, number of logits.
    """

    outputs: int

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> jax.Array:
        """Return logits on the grid of the first map; see `FeaturePyramid`."""
        size = maps[0].shape[1:3]
        layers = [
            resize_map(layer_norm(jnp.float32, name=f"norm_{stage}")(features), size)
            for stage, features in enumerate(maps)
        ]
        classify = nn.Dense(self.outputs, precision=matmul_precision(jnp.float32), name="classify")
        return classify(jnp.concatenate(layers, axis=-1))


class Segmenter(DownstreamModel):
    """Classifier of every pixel, of one date or of the second of two.

    Attributes:
      decoder_width: int, channels of the decoder; 0: `LinearPixelHead`.
      combine: an entry of `COMBINATIONS`, of the features of two dates.
    """

    decoder_width: int = 128
    combine: str = "concatenate"

    def setup(self) -> None:
        """Create encoder and decoder."""
        self.encoder = make_encoder(self.arch, self.dtype, self.remat, self.kernels)
        if self.decoder_width:
            self.head: nn.Module = FeaturePyramid(
                self.outputs, self.decoder_width, self.dtype, self.head_init
            )
        else:
            self.head = LinearPixelHead(self.outputs)

    def feature_maps(
        self, images: Sequence[jax.Array], key: jax.Array | None = None
    ) -> list[jax.Array]:
        """Return the maps of all stages, the dates combined.

        Args:
          images: (batch, height, width, band) of each date, standardised, 0 at nodata; height and
            width are multiples of the encoder's input size.
          key: for drop path in training, or None.

        Returns:
          (batch, row, column, channel) of each stage.
        """
        side = self.arch.image_size
        _, height, width, bands = images[0].shape
        tiles = jnp.concatenate([spatial_tiles(image, side) for image in images])
        tiles = tiles.reshape(-1, side, side, bands)  # dates * batch * tiles, …
        keep = None
        if key is not None and self.drop_path:
            keep = drop_path_factors(key, self.drop_path, self.arch.num_blocks, len(tiles))
        grid = height // side, width // side
        maps = [merge_tiles(stage, *grid) for stage in self.encoder.stages(tiles, None, keep)]
        if len(images) == 1:
            return maps
        pairs = [jnp.split(stage, len(images)) for stage in maps]
        if self.combine == "difference":
            return [after - before for before, after in pairs]
        return [jnp.concatenate(dates, axis=-1) for dates in pairs]

    def __call__(self, *images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return (batch, height, width, outputs) float32 logits, see `feature_maps`."""
        logits = self.head(self.feature_maps(images, key))
        return resize_map(logits, images[0].shape[1:3])


def merge_tiles(maps: jax.Array, rows: int, columns: int) -> jax.Array:
    """Return maps of images from maps of their tiles, the inverse of `heads.spatial_tiles`.

    Args:
      maps: (batch * rows * columns, row, column, channel).
      rows: rows of tiles.
      columns: columns of tiles.

    Returns:
      (batch, rows * row, columns * column, channel).
    """
    _, height, width, channels = maps.shape
    tiles = maps.reshape(-1, rows, columns, height, width, channels)
    tiles = tiles.transpose(0, 1, 3, 2, 4, 5)
    return tiles.reshape(-1, rows * height, columns * width, channels)


def resize_map(maps: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Return (batch, row, column, channel) maps resized bilinearly to (row, column) `size`."""
    if maps.shape[1:3] == size:
        return maps
    return jax.image.resize(maps, (len(maps), *size, maps.shape[3]), "linear")
