"""The encoder: a hierarchical windowed transformer without shifts (Swin as MixMIM uses it).

Feature maps are (batch, row, column, channel); inside a stage they are cut into windows once, and
the tokens of all windows of the batch are the rows of one matrix. A mask, where there is one, is a
grid of zeros and ones for the whole batch: a token attends only to tokens of its own mask value.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from sar_mixmae_jax.models.layers import (
    MLP,
    attend,
    layer_norm,
    linear,
    matmul_precision,
    scale_branch,
    sincos_position_embedding,
    torch_conv_init,
)
from sar_mixmae_jax.models.masking import mix_tokens, patchify, unpatchify, upsample_mask
from sar_mixmae_jax.models.resize import bicubic_resize


def to_windows(grid: jax.Array, window: int) -> jax.Array:
    """(batch, row, column, channel) -> (batch, windows, window², channel)."""
    cells = patchify(grid, window)
    return cells.reshape(*cells.shape[:2], window * window, grid.shape[-1])


def from_windows(windows: jax.Array) -> jax.Array:
    """The way back from `to_windows`, to a square map."""
    batch, count, tokens, channels = windows.shape
    return unpatchify(windows.reshape(batch, count, -1), round(tokens**0.5), channels)


def relative_position_index(window: int) -> np.ndarray:
    """(window², window²) indices into a bias table of (2 window - 1)² row-major offsets."""
    rows, columns = np.divmod(np.arange(window * window), window)
    row_offset = rows[:, None] - rows[None, :] + window - 1
    column_offset = columns[:, None] - columns[None, :] + window - 1
    return row_offset * (2 * window - 1) + column_offset


class WindowAttention(nn.Module):
    """Self-attention inside windows with a learned bias per relative position."""

    num_heads: int
    window: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None) -> jax.Array:
        """(rows, width), window after window, with a (windows, tokens) mask or None -> the same."""
        width = x.shape[-1]
        offsets = (2 * self.window - 1) ** 2
        table = self.param("bias_table", nn.initializers.normal(0.02), (offsets, self.num_heads))
        bias = table[relative_position_index(self.window)].transpose(2, 0, 1)  # head, query, key
        if mask is not None:
            other = mask[:, None, :, None] != mask[:, None, None, :]  # window, 1, query, key
            bias = jnp.where(other, -1e30, bias)
        qkv = linear(3 * width, self.dtype, name="qkv")(x)
        x = attend(qkv, self.window**2, self.num_heads, bias)
        return linear(width, self.dtype, name="proj")(x)


class Block(nn.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)), attention inside windows."""

    num_heads: int
    window: int
    mlp_ratio: int
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array | None, keep: jax.Array | None = None
    ) -> jax.Array:
        """(rows, width), window after window, with a (windows, tokens) mask or None -> the same.

        With `keep`, (2, images), the branches are scaled by it; see `drop_path`.
        """
        attention = WindowAttention(self.num_heads, self.window, self.dtype, name="attn")
        mlp = MLP(self.mlp_ratio, self.dtype, name="mlp")
        change = attention(layer_norm(self.dtype, name="norm1")(x), mask)
        x = x + (change if keep is None else scale_branch(change, keep[0]))
        change = mlp(layer_norm(self.dtype, name="norm2")(x))
        return x + (change if keep is None else scale_branch(change, keep[1]))


class PatchMerging(nn.Module):
    """Halves the map and doubles the width: 2x2 neighbours concatenated, normalised, projected."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """(batch, row, column, width) -> (batch, row / 2, column / 2, 2 width)."""
        batch, rows, columns, width = x.shape
        x = x.reshape(batch, rows // 2, 2, columns // 2, 2, width)
        # Neighbours in the order (0,0), (1,0), (0,1), (1,1): the column is the slower of the two.
        x = layer_norm(self.dtype, name="norm")(
            x.transpose(0, 1, 3, 4, 2, 5).reshape(-1, 4 * width)
        )
        x = linear(2 * width, self.dtype, bias=False, name="reduction")(x)
        return x.reshape(batch, rows // 2, columns // 2, 2 * width)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, hence one matrix product, and LayerNorm."""

    patch: int
    embed_dim: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        """(batch, height, width, band) -> (batch, height / patch, width / patch, channel)."""
        batch, height, width, _ = images.shape
        x = patchify(images, self.patch)
        x = x.reshape(-1, x.shape[-1])
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
      patch: pixels per token side.
      width: width of the first stage; each later stage doubles it.
      depths: blocks per stage.
      heads: attention heads per stage.
      windows: window side per stage, in tokens; never larger than the stage's map.
      mlp_ratio: width of the hidden layer over the width of the block.
      dtype: of the computation; parameters are float32.
      remat: recompute the blocks in the backward pass instead of keeping their activations.
      positions: side of the map that the position embedding was made for, from which it is resized
        to that of the images; None: that of the images.
    """

    patch: int
    embed_dim: int
    depths: tuple[int, ...]
    num_heads: tuple[int, ...]
    window_sizes: tuple[int, ...]
    mlp_ratio: int
    dtype: DTypeLike
    remat: bool = False
    positions: int | None = None

    @nn.compact
    def __call__(
        self, images: jax.Array, mask: jax.Array | None = None, keep: jax.Array | None = None
    ) -> jax.Array:
        """Encodes images, mixed by `mask` with their partners, or as they are without one.

        Args:
          images: (batch, height, width, band), standardised.
          mask: (cells, cells), 1 where a cell comes from the partner image, or None.
          keep: (blocks, 2, batch) factors of the branches of the blocks, or None; see `drop_path`.

        Returns:
          (batch, row, column, channel), one token per mask cell.
        """
        block_class = nn.remat(Block) if self.remat else Block
        x = PatchEmbedding(self.patch, self.embed_dim, self.dtype, name="patch_embed")(images)
        if mask is not None:
            x = mix_tokens(x, mask)
        side = x.shape[1]
        positions = sincos_position_embedding(self.positions or side, self.embed_dim)
        if len(positions) != side:
            positions = bicubic_resize(positions, side)
        x = x + positions.astype(x.dtype)
        done = 0
        stages = zip(self.depths, self.num_heads, self.window_sizes, strict=True)
        for stage, (depth, heads, window) in enumerate(stages):
            if stage:
                x = PatchMerging(self.dtype, name=f"merge_{stage - 1}")(x)
            side = x.shape[1]
            window = min(window, side)
            stage_mask = None
            if mask is not None:
                stage_mask = to_windows(upsample_mask(mask, side)[None, :, :, None], window)[
                    0, :, :, 0
                ]
            windows = to_windows(x, window)
            rows = windows.reshape(-1, x.shape[-1])
            for block in range(depth):
                name = f"stage_{stage}_block_{block}"
                make = block_class(heads, window, self.mlp_ratio, self.dtype, name=name)
                rows = make(rows, stage_mask, None if keep is None else keep[done])
                done += 1
            x = from_windows(rows.reshape(windows.shape))
        return layer_norm(self.dtype, name="norm")(x)
