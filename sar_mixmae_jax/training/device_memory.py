"""Memory of a pretraining step on one device, counted from the sizes of the model.

Activations are the arrays that automatic differentiation keeps for the backward pass. A compiler
may keep less, by recomputing cheap values, or more, for other layouts.
"""

import dataclasses
from typing import NamedTuple

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.training.sharding import PREFETCH

ITEMSIZES = {"float32": 4, "bfloat16": 2}
"""Bytes of a number by dtype of the computation."""
FLOAT32 = ITEMSIZES["float32"]
RAW_BATCHES = PREFETCH + 2
"""Raw batches on a device: prefetched ones, the one in use, and the one in transfer."""


@dataclasses.dataclass(frozen=True)
class DeviceStep:
    """Work of one device in a training step.

    Attributes:
      arch: architecture of the model.
      parameters: number of parameters.
      images: images of the batch on this device.
      side: side of a raw patch in pixels.
      remat: activations that blocks keep, an entry of `layers.REMAT`.
      grad_accum_steps: microbatches on this device, computed one after the other.
      fused: fields of `layers.Kernels` that are fused.
    """

    arch: Architecture
    parameters: int
    images: int
    side: int
    remat: str = "none"
    grad_accum_steps: int = 1
    fused: frozenset[str] = frozenset()


class Activations(NamedTuple):
    """Bytes of activations for one image.

    Attributes:
      kept: from the forward to the backward pass.
      recomputed: of the largest block while the backward pass is in it; 0 if all are kept.
    """

    kept: int
    recomputed: int


class Block(NamedTuple):
    """Sizes of a transformer block that its activations depend on, for one image.

    Attributes:
      values: tokens times width.
      logits: heads times tokens times tokens that each attends to.
    """

    values: int
    logits: int


def device_memory(step: DeviceStep, itemsize: int) -> dict[str, int]:
    """Return the bytes on a device by purpose.

    Args:
      step: work of the device.
      itemsize: bytes of a number of the computation.
    """
    arch, parameters = step.arch, step.parameters
    microbatch = step.images // step.grad_accum_steps
    kept, recomputed = activations(arch, itemsize, remat=step.remat, fused=step.fused)
    pixels = arch.image_size**2 * arch.bands
    rounded = itemsize < FLOAT32 and step.remat == "none"  # kept by every product, or rounded again
    gradients = 1 if step.grad_accum_steps == 1 else 2  # of a microbatch, and their sum
    return {
        "parameters, float32": FLOAT32 * parameters,
        "parameters, rounded": itemsize * parameters if rounded else 0,
        "gradients": gradients * FLOAT32 * parameters,
        "AdamW moments": 2 * FLOAT32 * parameters,
        "activations": microbatch * kept,
        "recomputed block": microbatch * recomputed,
        "raw batches": RAW_BATCHES * step.images * step.side**2 * arch.bands * FLOAT32,
        "images, weights, validity": microbatch * pixels * (2 * FLOAT32 + 1),
    }


def activations(
    arch: Architecture, itemsize: int, *, remat: str = "none", fused: frozenset[str] = frozenset()
) -> Activations:
    """Count the activations that the backward pass needs, for one image.

    Args:
      arch: architecture of the model.
      itemsize: bytes of a number of the computation: 4 in float32, 2 in bfloat16.
      remat: activations that blocks keep, an entry of `layers.REMAT`.
      fused: see `DeviceStep`.
    """
    outside = _outside_of_blocks(arch, itemsize)
    all_blocks = blocks(arch)
    whole = [_block_bytes(block, arch.mlp_ratio, itemsize, fused) for block in all_blocks]
    if remat == "none":
        return Activations(outside + sum(whole), 0)
    # Input; with dots also query, key and value, the output of attention, and that of a layer.
    arrays = {"full": 1, "dots": 1 + 3 + 1 + arch.mlp_ratio}[remat]
    kept = sum(arrays * itemsize * block.values for block in all_blocks)
    return Activations(outside + kept, max(whole))


def blocks(arch: Architecture) -> list[Block]:
    """Return all blocks in order; those of the decoder see both sequences of a mixed image."""
    sizes = []
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        side, width = arch.image_size // (arch.patch_size << stage), arch.embed_dim << stage
        logits = arch.num_heads[stage] * side**2 * min(window, side) ** 2
        sizes += depth * [Block(side**2 * width, logits)]
    cells = arch.mask_grid**2
    logits = 2 * arch.decoder_num_heads * cells**2
    return sizes + arch.decoder_depth * [Block(2 * cells * arch.decoder_embed_dim, logits)]


def _block_bytes(block: Block, mlp_ratio: int, itemsize: int, fused: frozenset[str]) -> int:
    """Two LayerNorms; query, key, value and output of attention; softmax; the MLP.

    Fused kernels keep the argument and the output of LayerNorm, and no softmax. The exact GELU
    keeps its argument, erfc, the derivative of erfc, and its value; of 16 bits its argument and
    value.
    """
    norms = 2 * _layer_norm_bytes(block.values, itemsize)
    if "norm" in fused:
        norms = 4 * itemsize * block.values
    attention = 4 * itemsize * block.values
    if "attention" not in fused:
        attention += (FLOAT32 + itemsize) * block.logits
    mlp = (4 if itemsize == FLOAT32 else 2) * mlp_ratio * itemsize * block.values
    return norms + attention + mlp


def _layer_norm_bytes(values: int, itemsize: int) -> int:
    """Three float32 arrays (the centred input twice, the factor) and the output."""
    return (3 * FLOAT32 + itemsize) * values


def _outside_of_blocks(arch: Architecture, itemsize: int) -> int:
    """Patch embedding, merging, the last norms, and the error of the prediction."""
    side = arch.image_size // arch.patch_size
    pixels, cells = arch.image_size**2 * arch.bands, arch.mask_grid**2
    merged = sum(
        (side >> stage) ** 2 * (arch.embed_dim << stage) for stage in range(len(arch.depths) - 1)
    )
    last = cells * (arch.embed_dim << (len(arch.depths) - 1))
    decoded = 2 * cells * arch.decoder_embed_dim
    norms = sum(
        _layer_norm_bytes(values, itemsize)
        for values in (side**2 * arch.embed_dim, merged, last, decoded)
    )
    return norms + itemsize * pixels + 2 * FLOAT32 * pixels
