"""MixMAE: encode two images mixed into one, decode both (Liu et al., CVPR 2023).

No token of the encoder's input is a mask token: each belongs to one of the two images, and each
image is reconstructed where the other was shown.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.initialisers import initial_params, normal
from sar_mixmae_jax.models.layers import (
    MLP,
    PLAIN,
    Kernels,
    Prediction,
    ResidualNorm,
    layer_norm,
    linear,
    remat_block,
    sincos_position_embedding,
)
from sar_mixmae_jax.models.masking import mix_tokens
from sar_mixmae_jax.models.swin import make_encoder


class DecoderBlock(nn.Module):
    """Transformer block: x + attention(norm(x)), then x + MLP(norm(x)).

    Attributes:
      tokens: int, tokens of a sequence.
      num_heads: int, attention heads.
      mlp_ratio: int, hidden width of the MLP over its input's.
      dtype: dtype of the computation.
      kernels: functions for attention and LayerNorm.
    """

    tokens: int
    num_heads: int
    mlp_ratio: int
    dtype: DTypeLike
    kernels: Kernels = PLAIN

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (rows, width) of (rows, width), sequence after sequence of `tokens` rows."""
        width = x.shape[-1]
        x, normalised = ResidualNorm(self.kernels.norm, name="norm1")(x)
        qkv = linear(3 * width, self.dtype, name="qkv")(normalised)
        change = self.kernels.attention(qkv, self.tokens, self.num_heads)
        change = linear(width, self.dtype, name="proj")(change)
        x, normalised = ResidualNorm(self.kernels.norm, name="norm2")(x, change)
        return x + MLP(self.mlp_ratio, self.dtype, name="mlp")(normalised)


class Decoder(nn.Module):
    """Reconstruction of both images of a mixture, each from the tokens that it kept.

    Attributes:
      arch: architecture of the model.
      dtype: dtype of the computation; parameters and predictions are float32.
      remat: activations that blocks keep for the backward pass, an entry of `layers.REMAT`.
      kernels: functions for attention and LayerNorm of the blocks.
    """

    arch: Architecture
    dtype: DTypeLike
    remat: str = "none"
    kernels: Kernels = PLAIN

    @nn.compact
    def __call__(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Return the predicted values of all mask units of both images.

        Args:
          tokens: (batch, row, column, channel) of the encoder, one per mask unit.
          mask: (units, units), 1 where a token belongs to the partner.

        Returns:
          (2 * batch, units, unit² * bands) float32: the reconstructions of the images, then
          those of their partners.
        """
        arch = self.arch
        block_class = remat_block(DecoderBlock, self.remat)
        units, width = mask.size, arch.decoder_embed_dim
        x = linear(width, self.dtype, name="embed")(tokens.reshape(-1, tokens.shape[-1]))
        x = x.reshape(-1, units, width)  # batch, units, width
        mask_token = self.param("mask_token", normal(0.02), (1, 1, width))
        from_partner = mask.reshape(1, -1, 1) == 1
        mask_token = mask_token.astype(x.dtype)
        own = jnp.where(from_partner, mask_token, x)
        partner = jnp.where(from_partner, x, mask_token)
        x = jnp.concatenate([own, partner])  # 2 * batch, units, width
        positions = sincos_position_embedding(mask.shape[0], width)
        x = x + positions.reshape(1, -1, width).astype(x.dtype)
        x = x.reshape(-1, width)  # 2 * batch * units, width
        for block in range(arch.decoder_depth):
            name = f"block_{block}"
            apply = block_class(
                units,
                arch.decoder_num_heads,
                arch.mlp_ratio,
                self.dtype,
                self.kernels,
                name=name,
            )
            x = apply(x)
        x = layer_norm(self.dtype, name="norm")(x)
        values = arch.mask_unit * arch.mask_unit * arch.bands
        x = Prediction(values, name="pred")(x)
        return x.reshape(-1, units, values)  # 2 * batch, units, values


class MixMAE(nn.Module):
    """The pretraining model: `encode`, `decode`, or both by calling it.

    Attributes:
      arch: its sizes.
      dtype: dtype of the computation; parameters and predictions are float32.
      remat: activations that blocks keep for the backward pass, an entry of `layers.REMAT`.
      kernels: functions for attention and LayerNorm of the blocks.
    """

    arch: Architecture
    dtype: DTypeLike = jnp.float32
    remat: str = "none"
    kernels: Kernels = PLAIN

    def setup(self) -> None:
        """Create encoder and decoder."""
        self.encoder = make_encoder(self.arch, self.dtype, self.remat, self.kernels)
        self.decoder = Decoder(self.arch, self.dtype, self.remat, self.kernels)

    def encode(self, images: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        """Apply the encoder; see `Encoder`."""
        return self.encoder(images, mask)

    def decode(self, tokens: jax.Array, mask: jax.Array) -> jax.Array:
        """Apply the decoder; see `Decoder`."""
        return self.decoder(tokens, mask)

    def __call__(self, images: jax.Array, mask: jax.Array) -> jax.Array:
        """Predict every mask unit of every image from the view in which it was hidden.

        Args:
          images: (batch, height, width, band), standardised.
          mask: (units, units), 1 where a unit comes from the partner image.

        Returns:
          (batch, units, unit² * bands) float32, values laid out as by `masking.patchify`.
        """
        return unmix(self.decode(self.encode(images, mask), mask), mask)

    @staticmethod
    def predicted_units(mask: jax.Array) -> None:
        """Return None: every unit was hidden when it was predicted."""
        del mask

    @staticmethod
    def masked_input(images: jax.Array, mask: jax.Array) -> jax.Array:
        """Return (batch, height, width, band) images as the encoder sees them: mixed."""
        return mix_tokens(images, mask)


def init_params(model: nn.Module, key: jax.Array) -> Any:
    """Return initial parameters: {"encoder": …, "decoder": …}."""
    arch = model.arch
    images = (2, arch.image_size, arch.image_size, arch.bands)
    return initial_params(model, key, images, (arch.mask_grid, arch.mask_grid))


def unmix(reconstructions: jax.Array, mask: jax.Array) -> jax.Array:
    """Select, for each image and mask unit, the reconstruction made without seeing that unit.

    Args:
      reconstructions: (2 * batch, units, values), images first, then their partners.
      mask: (units, units), 1 where a unit comes from the partner.

    Returns:
      (batch, units, values): the image's own sequence where the mask is 1, and where it is 0 the
      second sequence of the mixture in which it was the partner.
    """
    own, as_partner = jnp.split(reconstructions, 2)
    return jnp.where(mask.reshape(1, -1, 1) == 1, own, as_partner[::-1])
