"""SimMIM: one image, mask tokens in the input of the encoder, a linear decoder (Xie et al., 2022).

The ablation of mixing: encoder, mask units, targets and weights are those of MixMAE.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.initialisers import normal
from sar_mixmae_jax.models.layers import PLAIN, Kernels, Prediction
from sar_mixmae_jax.models.masking import masked_pixels
from sar_mixmae_jax.models.swin import make_encoder


class LinearDecoder(nn.Module):
    """Mask token of the encoder's input, and prediction of a mask unit from its token.

    Attributes:
      arch: architecture of the model.
    """

    arch: Architecture

    def setup(self) -> None:
        """Create the parameters."""
        arch = self.arch
        self.mask_token = self.param("mask_token", normal(0.02), (1, 1, 1, arch.embed_dim))
        self.pred = Prediction(arch.mask_unit * arch.mask_unit * arch.bands)

    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Return (batch, units, unit² * bands) float32 of (batch, row, column, channel) tokens."""
        batch, rows, columns, width = tokens.shape
        return self.pred(tokens.reshape(-1, width)).reshape(batch, rows * columns, -1)


class SimMIM(nn.Module):
    """Pretraining model that hides mask units of an image and predicts them from the others.

    Attributes:
      arch: its sizes; those of the decoder are not used.
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
        self.decoder = LinearDecoder(self.arch)

    def __call__(self, images: jax.Array, mask: jax.Array) -> jax.Array:
        """Predict every mask unit of every image.

        Args:
          images: (batch, height, width, band), standardised.
          mask: (units, units), 1 where a unit is hidden.

        Returns:
          (batch, units, unit² * bands) float32, values laid out as by `masking.patchify`.
        """
        return self.decoder(self.encoder(images, mask, mask_token=self.decoder.mask_token))

    @staticmethod
    def predicted_units(mask: jax.Array) -> jax.Array:
        """Return (1, units, 1), True where a unit was hidden when it was predicted."""
        return mask.reshape(1, -1, 1) == 1

    @staticmethod
    def masked_input(images: jax.Array, mask: jax.Array) -> jax.Array:
        """Return (batch, height, width, band) images as the encoder sees them: NaN where hidden."""
        return jnp.where(masked_pixels(mask, images.shape[1]), jnp.nan, images)
