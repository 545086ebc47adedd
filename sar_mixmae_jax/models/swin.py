"""Encoder: a hierarchical transformer with unshifted windows, Swin as used by MixMIM.

Feature maps are (batch, row, column, channel). Inside a stage they are cut into windows once, and
the tokens of all windows of the batch are the rows of one matrix. An optional mask is one grid of
zeros and ones for the whole batch; a token attends only to tokens of its own mask value.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.initialisers import normal, torch_conv_init
from sar_mixmae_jax.models.layers import (
    MLP,
    PLAIN,
    AttentionFn,
    Kernels,
    ResidualNorm,
    attend,
    layer_norm,
    linear,
    matmul_precision,
    remat_block,
    scale_branch,
    sincos_position_embedding,
)
from sar_mixmae_jax.models.masking import (
    masked_pixels,
    mix_tokens,
    patchify,
    unpatchify,
    upsample_mask,
)
from sar_mixmae_jax.models.resize import bicubic_resize


def to_windows(grid: jax.Array, window: int) -> jax.Array:
    """Return (batch, windows, window², channel) of (batch, row, column, channel)."""
    windows = patchify(grid, window)
    return windows.reshape(*windows.shape[:2], window * window, grid.shape[-1])


def from_windows(windows: jax.Array) -> jax.Array:
    """Return the square map (batch, row, column, channel) of `to_windows`' output."""
    batch, count, tokens, channels = windows.shape
    return unpatchify(windows.reshape(batch, count, -1), round(tokens**0.5), channels)


def relative_position_index(window: int) -> np.ndarray:
    """Return (window², window²) indices into a table of (2 window - 1)² row-major offsets."""
    rows, columns = np.divmod(np.arange(window * window), window)
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias per relative position.

    Attributes:
      num_heads: int, attention heads.
      window: int, side of a window, tokens.
      dtype: dtype of the computation.
      attention: `layers.attend`, or a function with the same arguments and result.
    """

    num_heads: int
    window: int
    dtype: DTypeLike
    attention: AttentionFn = attend

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """Attend inside windows.

        Args:
          x: (rows, width), window after window.
          mask: (windows, tokens) of an image, the same for all images, or None.

        Returns:
          (rows, width).
        """
        width = x.shape[-1]
        offsets = (2 * self.window - 1) ** 2
        table = self.param("bias_table", normal(0.02), (offsets, self.num_heads))
        bias = table[relative_position_index(self.window)].transpose(2, 0, 1)  # head, query, key
        qkv = linear(3 * width, self.dtype, name="qkv")(x)
        x = self.attention(qkv, self.window**2, self.num_heads, bias, mask)
        return linear(width, self.dtype, name="proj")(x)


class Block(nn.Module):
    """Transformer block with attention inside windows: x + attention(norm(x)), x + MLP(norm(x)).

    Attributes:
      num_heads: int, attention heads.
      window: int, side of a window, tokens.
      mlp_ratio: int, hidden width of the MLP over its input's.
      dtype: dtype of the computation.
      kernels: functions for attention and LayerNorm.
    """

    num_heads: int
    window: int
    mlp_ratio: int
    dtype: DTypeLike
    kernels: Kernels = PLAIN

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, keep: jax.Array | None = None
    ) -> jax.Array:
        """Apply the block.

        Args:
          x: (rows, width), window after window.
          mask: (windows, tokens) of an image, or None.
          keep: (2, images) factors of the two branches, or None; see `layers.drop_path_factors`.

        Returns:
          (rows, width).
        """
        attention = WindowAttention(
            self.num_heads, self.window, self.dtype, self.kernels.attention, name="attn"
        )
        mlp = MLP(self.mlp_ratio, self.dtype, name="mlp")
        x, normalised = ResidualNorm(self.kernels.norm, name="norm1")(x)
        change = attention(normalised, mask)
        change = change if keep is None else scale_branch(change, keep[0])
        x, normalised = ResidualNorm(self.kernels.norm, name="norm2")(x, change)
        change = mlp(normalised)
        return x + (change if keep is None else scale_branch(change, keep[1]))


class PatchMerging(nn.Module):
    """Downsampling between stages: 2x2 neighbours concatenated, normalised, projected.

    Attributes:
      dtype: dtype of the computation.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Return (batch, row / 2, column / 2, 2 width) of (batch, row, column, width)."""
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows // 2, 2, columns // 2, 2, width)
        # Neighbours in the order (0,0), (1,0), (0,1), (1,1): the column is the slower of the two.
        x = x.transpose(0, 1, 3, 4, 2, 5).reshape(-1, 4 * width)
        x = layer_norm(self.dtype, name="norm")(x)
        x = linear(2 * width, self.dtype, bias=False, name="reduction")(x)
        return x.reshape(batch, rows // 2, columns // 2, 2 * width)


class PatchEmbedding(nn.Module):
    """Convolution with stride equal to its kernel, as one matrix product, and LayerNorm.

    Attributes:
      patch: int, side of a token, pixels.
      embed_dim: int, channels of a token.
      dtype: dtype of the computation.
    """

    patch: int
    embed_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """Return (batch, row, column, channel) tokens of (batch, height, width, band) images."""
        batch, height, width, _ = images.shape
        x = patchify(images, self.patch)
        x = x.reshape(-1, x.shape[-1])  # batch * tokens, patch² * bands
        x = nn.Dense(
            self.embed_dim,
            dtype=self.dtype,
            precision=matmul_precision(self.dtype),
            kernel_init=torch_conv_init(x.shape[-1]),
            bias_init=torch_conv_init(x.shape[-1]),
            name="proj",
        )(x)
        x = layer_norm(self.dtype, name="norm")(x)
        return x.reshape(batch, height // self.patch, width // self.patch, self.embed_dim)


class Encoder(nn.Module):
    """Patch embedding, mixing, position embedding, stages of blocks with merging, final LayerNorm.

    Attributes:
      patch: int, side of a token in the first stage, pixels.
      embed_dim: int, channels of the first stage; each later stage doubles them.
      depths: blocks per stage.
      num_heads: attention heads per stage.
      window_sizes: side of a window per stage, tokens; limited to the side of the stage's map.
      mlp_ratio: int, hidden width of an MLP over its input's.
      dtype: dtype of the computation; parameters are float32.
      remat: activations that blocks keep for the backward pass, an entry of `layers.REMAT`.
      positions: side of the map that the position embedding was made for, tokens; the embedding is
        resized from it to the map of the images. None: the map of the images.
      kernels: functions for attention and LayerNorm of the blocks.
    """

    patch: int
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    mlp_ratio: int
    dtype: DTypeLike
    remat: str = "none"
    positions: int | None = None
    kernels: Kernels = PLAIN

    def __call__(
        self,
        images: jax.Array,
        mask: jax.Array | None = None,
        keep: jax.Array | None = None,
        mask_token: jax.Array | None = None,
    ) -> jax.Array:
        """Return the last map of `stages`: (batch, row, column, channel), a token per mask unit."""
        return self.stages(images, mask, keep, mask_token)[-1]

    @nn.compact
    def stages(
        self,
        images: jax.Array,
        mask: jax.Array | None = None,
        keep: jax.Array | None = None,
        mask_token: jax.Array | None = None,
    ) -> tuple[jax.Array, ...]:
        """Encode images, mixed with their partners if there is a mask.

        Args:
          images: (batch, height, width, band), standardised.
          mask: (units, units), 1 where a mask unit comes from the partner image, or None.
          keep: (blocks, 2, batch) factors of the branches of the blocks, or None; see
            `layers.drop_path_factors`.
          mask_token: (1, 1, 1, channel) token that takes the place of the partner's, and that
            every token attends to; None: images are mixed.

        Returns:
          (batch, row, column, channel) of every stage; the last one is normalised.
        """
        block_class = remat_block(Block, self.remat)
        x = PatchEmbedding(self.patch, self.embed_dim, self.dtype, name="patch_embed")(images)
        if mask is not None and mask_token is not None:
            hidden = masked_pixels(mask, x.shape[1])
            x, mask = jnp.where(hidden, mask_token.astype(x.dtype), x), None
        elif mask is not None:
            x = mix_tokens(x, mask)
        side = x.shape[1]
        positions = sincos_position_embedding(self.positions or side, self.embed_dim)
        if len(positions) != side:
            positions = bicubic_resize(positions, side)
        x = x + positions.astype(x.dtype)
        done, maps = 0, []
        stages = zip(self.depths, self.num_heads, self.window_sizes, strict=True)
        for stage, (depth, heads, window) in enumerate(stages):
            if stage:
                x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x)
            side = x.shape[1]
            window = min(window, side)
            stage_mask = None
            if mask is not None:
                stage_mask = upsample_mask(mask, side)[None, :, :, None]
                stage_mask = to_windows(stage_mask, window)[0, :, :, 0]  # windows, tokens
            windows = to_windows(x, window)  # batch, windows, tokens, channel
            rows = windows.reshape(-1, x.shape[-1])
            for block in range(depth):
                name = f"stage_{stage}_block_{block}"
                apply = block_class(
                    heads, window, self.mlp_ratio, self.dtype, self.kernels, name=name
                )
                rows = apply(rows, stage_mask, None if keep is None else keep[done])
                done += 1
            x = from_windows(rows.reshape(windows.shape))  # batch, row, column, channel
            maps.append(x)
        return (*maps[:-1], layer_norm(self.dtype, name="norm")(x))


def make_encoder(
    arch: Architecture, dtype: DTypeLike, remat: str, kernels: Kernels = PLAIN
) -> Encoder:
    """Return the encoder of an architecture, for pretraining and for downstream tasks."""
    positions = arch.pretrain_image_size // arch.patch_size if arch.pretrain_image_size else None
    return Encoder(
        arch.patch_size,
        arch.embed_dim,
        arch.depths,
        arch.num_heads,
        arch.window_sizes,
        arch.mlp_ratio,
        dtype,
        remat,
        positions,
        kernels,
    )
