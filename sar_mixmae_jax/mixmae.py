"""MixMAE: encode two images mixed into one, decode both, and the table of model sizes.

Mixing halves what a masked autoencoder wastes on mask tokens: every token of the encoder's input
belongs to one of the two images, and each image is reconstructed where the other was shown.
"""

import dataclasses
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.errors import InputError, look_up
from sar_mixmae_jax.layers import MLP, attend, layer_norm, linear, sincos_position_embedding
from sar_mixmae_jax.swin import Encoder

LARGEST = 2**16
"""No size of a model is beyond it."""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """The size of a model; the defaults are common to the published ones.

    Attributes:
      width: channels of the first stage; each later stage doubles them.
      depths: blocks per stage.
      heads: attention heads per stage.
      windows: window side per stage, in tokens.
      bands: input bands.
      image_size: input side in pixels.
      position_size: input side that the position embedding was made for; None: `image_size`.
      patch_size: pixels per token side in the first stage.
      mlp_ratio: hidden width of an MLP over its input's.
      decoder_width: channels of the decoder.
      decoder_depth: blocks of the decoder.
      decoder_heads: attention heads of the decoder.
    """

    width: int
    heads: tuple[int, ...]
    depths: tuple[int, ...] = (2, 2, 18, 2)
    windows: tuple[int, ...] = (8, 8, 8, 4)
    bands: int = 2
    image_size: int = 128
    position_size: int | None = None
    patch_size: int = 4
    mlp_ratio: int = 4
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            sizes = value if isinstance(value, tuple) else (value,)
            if value is None:
                continue
            if not sizes or not all(isinstance(s, int) and 1 <= s <= LARGEST for s in sizes):
                raise InputError(
                    f"{field.name} is {value}: expected whole numbers from 1 to {LARGEST}"
                )
        if not len(self.depths) == len(self.heads) == len(self.windows):
            raise InputError(
                f"depths {self.depths}, heads {self.heads} and windows {self.windows} differ in "
                "length: give one value per stage"
            )
        if self.image_size % self.cell:
            raise InputError(
                f"image_size is {self.image_size}: expected a multiple of the mask cell, "
                f"{self.cell} px"
            )
        for stage, (heads, window) in enumerate(zip(self.heads, self.windows, strict=True)):
            tokens = self.image_size // (self.patch_size << stage)
            if tokens % min(window, tokens):
                raise InputError(
                    f"the window of stage {stage + 1} is {window} tokens: expected a divisor of "
                    f"its map of {tokens}x{tokens} tokens (image_size {self.image_size})"
                )
            _check_width(f"width of stage {stage + 1}", self.width << stage, heads)
        _check_width("decoder_width", self.decoder_width, self.decoder_heads)

    @property
    def cell(self) -> int:
        """Side of a mask cell in pixels, the encoder's stride: 32 with four stages."""
        return self.patch_size << (len(self.depths) - 1)

    @property
    def blocks(self) -> int:
        """Blocks of the encoder, of all stages."""
        return sum(self.depths)

    @property
    def features(self) -> int:
        """Width of the last stage, which is that of what the encoder makes of an image."""
        return self.width << (len(self.depths) - 1)

    @property
    def grid(self) -> int:
        """Mask cells along a side: 4 at 128 px."""
        return self.image_size // self.cell


def _check_width(what: str, width: int, heads: int) -> None:
    if width % heads or width % 4:
        raise InputError(
            f"{what} is {width}: expected a multiple of 4 and of its {heads} attention heads"
        )


VARIANTS = {
    "tiny": Architecture(
        width=32,
        heads=(1, 2, 4, 8),
        depths=(2, 2, 2, 2),
        decoder_width=128,
        decoder_depth=2,
        decoder_heads=4,
    ),
    "base": Architecture(width=128, heads=(4, 8, 16, 32)),
    "large": Architecture(width=192, heads=(6, 12, 24, 48)),
    "huge": Architecture(width=352, heads=(11, 22, 44, 88)),
}
"""The published sizes, and `tiny` for laptops and tests."""


def architecture(variant: str, **changes: object) -> Architecture:
    """An entry of `VARIANTS` with some of its fields changed; a change of None changes nothing.

    Raises:
      InputError: the variant is unknown, or the changed sizes do not fit together.
    """
    given = {name: value for name, value in changes.items() if value is not None}
    return dataclasses.replace(look_up(VARIANTS, variant, "variant"), **given)  # type: ignore[arg-type]


def make_encoder(size: Architecture, dtype: DTypeLike, remat: bool) -> Encoder:
    """The encoder of a model, in pretraining and after it."""
    positions = size.position_size // size.patch_size if size.position_size else None
    return Encoder(
        size.patch_size,
        size.width,
        size.depths,
        size.heads,
        size.windows,
        size.mlp_ratio,
        dtype,
        remat,
        positions,
    )


class DecoderBlock(nn.Module):
    """A standard transformer block: x + attention(norm(x)), then x + MLP(norm(x))."""

    tokens: int
    heads: int
    mlp_ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(rows, width), sequence after sequence of `tokens` -> the same shape."""
        width = x.shape[-1]
        qkv = linear(3 * width, self.dtype, name="qkv")(layer_norm(self.dtype, name="norm1")(x))
        y = attend(qkv, self.tokens, self.heads)
        x = x + linear(width, self.dtype, name="proj")(y)
        return x + MLP(self.mlp_ratio, self.dtype, name="mlp")(
            layer_norm(self.dtype, name="norm2")(x)
        )


class Decoder(nn.Module):
    """Reconstructs both images of a mixture from the tokens that each one kept."""

    size: Architecture
    dtype: DTypeLike
    remat: bool = False

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes.

        Args:
          tokens: (batch, row, column, channel) of the encoder.
          mask: (cells, cells), 1 where a token belongs to the partner.

        Returns:
          (2 * batch, cells, cell² * bands) float32: first the reconstructions of the images, then
          those of their partners.
        """
        size = self.size
        block_class = nn.remat(DecoderBlock) if self.remat else DecoderBlock
        cells, width = mask.size, size.decoder_width
        x = linear(width, self.dtype, name="embed")(tokens.reshape(-1, tokens.shape[-1]))
        x = x.reshape(-1, cells, width)
        mask_token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, width))
        from_partner = mask.reshape(1, -1, 1) == 1
        mask_token = mask_token.astype(x.dtype)
        own = jnp.where(from_partner, mask_token, x)
        partner = jnp.where(from_partner, x, mask_token)
        x = jnp.concatenate([own, partner])  # 2 * batch, cells, width
        positions = sincos_position_embedding(mask.shape[0], width)
        x = (x + positions.reshape(1, -1, width).astype(x.dtype)).reshape(-1, width)
        for block in range(size.decoder_depth):
            name = f"block_{block}"
            x = block_class(cells, size.decoder_heads, size.mlp_ratio, self.dtype, name=name)(x)
        x = layer_norm(self.dtype, name="norm")(x)
        values = size.cell * size.cell * size.bands
        return linear(values, jnp.float32, name="pred")(x).reshape(-1, cells, values)


class MixMAE(nn.Module):
    """The pretraining model: `encode` and `decode`, or both by calling it."""

    size: Architecture
    dtype: DTypeLike = jnp.float32
    remat: bool = False

    def setup(self) -> None:
        """Makes the two halves."""
        self.encoder = make_encoder(self.size, self.dtype, self.remat)
        self.decoder = Decoder(self.size, self.dtype, self.remat)

    def encode(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """See `Encoder`."""
        return self.encoder(images, mask)

    def decode(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """See `Decoder`."""
        return self.decoder(tokens, mask)

    def __call__(self, images: jax.Array, mask: jax.Array) -> jax.Array:
        """Predicts every cell of every image from the view in which it was hidden.

        Args:
          images: (batch, height, width, band), standardised.
          mask: (cells, cells), 1 where a cell comes from the partner image.

        Returns:
          (batch, cells, cell² * bands) float32, values laid out as by `cells.patchify`.
        """
        return unmix(self.decode(self.encode(images, mask), mask), mask)


@partial(jax.jit, static_argnums=0)
def random_params(model: MixMAE, key: jax.Array) -> Any:
    """Parameters before training: {"encoder": …, "decoder": …}."""
    size = model.size
    images = jnp.zeros((2, size.image_size, size.image_size, size.bands))
    return model.init(key, images, jnp.zeros((size.grid, size.grid)))["params"]


def unmix(reconstructions: jax.Array, mask: jax.Array) -> jax.Array:
    """Picks, for each image and cell, the reconstruction made without seeing that cell.

    Args:
      reconstructions: (2 * batch, cells, values), images first, then their partners.
      mask: (cells, cells), 1 where a cell comes from the partner.

    Returns:
      (batch, cells, values): the image's own sequence where the mask is 1, and where it is 0 the
      second sequence of the mixture in which it was the partner.
    """
    own, as_partner = jnp.split(reconstructions, 2)
    return jnp.where(mask.reshape(1, -1, 1) == 1, own, as_partner[::-1])
