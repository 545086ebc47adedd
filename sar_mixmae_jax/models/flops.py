"""Floating-point operations of the matrix products of a model, counted from its architecture.

A product of (n, k) by (k, m) counts 2 n k m; elementwise work is not counted. A training step
costs three times the forward pass: the products once forward, twice backward.
"""

from sar_mixmae_jax.models.architecture import Architecture


def encoder_flops(arch: Architecture) -> int:
    """Return the operations of a forward pass of the encoder for one image."""
    side = arch.image_size // arch.patch_size
    total = 2 * side**2 * arch.patch_size**2 * arch.bands * arch.embed_dim
    for stage in range(1, len(arch.depths)):
        width, tokens = arch.embed_dim << stage, (side >> stage) ** 2
        total += 2 * tokens * (2 * width) * width  # merging: four narrow tokens to one wide
    return total + encoder_block_flops(arch)


def encoder_block_flops(arch: Architecture) -> int:
    """Return the operations of the encoder's blocks, which remat computes once more."""
    total = 0
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        side, width = arch.image_size // (arch.patch_size << stage), arch.embed_dim << stage
        total += depth * _block_flops(side**2, min(window, side) ** 2, width, arch.mlp_ratio)
    return total


def decoder_flops(arch: Architecture) -> int:
    """Return the operations of a forward pass of the decoder for one image, two sequences."""
    units, width = arch.mask_grid**2, arch.decoder_embed_dim
    embed = 2 * units * (arch.embed_dim << (len(arch.depths) - 1)) * width
    predict = 2 * units * width * arch.mask_unit**2 * arch.bands
    return embed + decoder_block_flops(arch) + 2 * predict


def decoder_block_flops(arch: Architecture) -> int:
    """Return the operations of the decoder's blocks for one image, two sequences."""
    units, width = arch.mask_grid**2, arch.decoder_embed_dim
    return 2 * arch.decoder_depth * _block_flops(units, units, width, arch.mlp_ratio)


def train_step_flops(arch: Architecture, batch: int, *, remat: bool = False) -> int:
    """Return the operations of forward and backward pass of pretraining on a batch."""
    recomputed = encoder_block_flops(arch) + decoder_block_flops(arch) if remat else 0
    return batch * (3 * (encoder_flops(arch) + decoder_flops(arch)) + recomputed)


def _block_flops(tokens: int, attended: int, width: int, mlp_ratio: int) -> int:
    """Return the operations of a block over `tokens`, each attending to `attended` tokens."""
    projections = 2 * tokens * width * width * (4 + 2 * mlp_ratio)
    attention = 2 * 2 * tokens * attended * width
    return projections + attention
