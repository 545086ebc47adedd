"""Memory of a training step on one device, counted from the sizes of the model.

Activations are what automatic differentiation keeps of this model for the backward pass, array by
array. A compiler may keep less, by computing cheap things again, or more, for other layouts.
"""

import dataclasses
from typing import NamedTuple

from sar_mixmae_jax.devices import AHEAD
from sar_mixmae_jax.mixmae import Architecture

FLOAT32 = 4
RAW_BATCHES = AHEAD + 2
"""Raw batches on a device: those that wait, the one in use, and the one on its way."""


@dataclasses.dataclass(frozen=True)
class DeviceStep:
    """What one device does in a training step.

    Attributes:
      size: of the model.
      parameters: their number.
      images: the device's part of the batch.
      side: of a raw patch in pixels.
      remat: whether blocks keep their input only and are computed again in the backward pass.
      accumulate: shares of the device's part that are computed one after the other.
    """

    size: Architecture
    parameters: int
    images: int
    side: int
    remat: bool = False
    accumulate: int = 1


class Activations(NamedTuple):
    """Bytes for one image.

    Attributes:
      kept: from the forward to the backward pass.
      recomputed: of the largest block, while the backward pass goes through it; 0 without remat.
    """

    kept: int
    recomputed: int


class Block(NamedTuple):
    """The sizes of a transformer block that activations depend on, for one image.

    Attributes:
      values: tokens times width.
      logits: heads times tokens times tokens seen by each.
    """

    values: int
    logits: int


def activations(size: Architecture, itemsize: int, *, remat: bool = False) -> Activations:
    """What the backward pass needs of the forward pass, for one image.

    Args:
      size: of the model.
      itemsize: bytes of a number of the computation: 4 in float32, 2 in bfloat16.
      remat: whether blocks keep their input only and are computed again.
    """
    outside = _outside_of_blocks(size, itemsize)
    every = blocks(size)
    whole = [_block(block, size.mlp_ratio, itemsize) for block in every]
    if remat:
        return Activations(outside + sum(itemsize * block.values for block in every), max(whole))
    return Activations(outside + sum(whole), 0)


def device_memory(step: DeviceStep, itemsize: int) -> dict[str, int]:
    """Bytes on a device by what they are for.

    Args:
      step: what it does.
      itemsize: bytes of a number of the computation.
    """
    size, parameters = step.size, step.parameters
    share = step.images // step.accumulate
    kept, recomputed = activations(size, itemsize, remat=step.remat)
    pixels = size.image_size**2 * size.bands
    rounded = itemsize < FLOAT32 and not step.remat  # kept by every product; with remat made again
    return {
        "parameters, float32": FLOAT32 * parameters,
        "parameters, rounded": itemsize * parameters if rounded else 0,
        "gradients": FLOAT32 * parameters * (1 if step.accumulate == 1 else 2),  # and their sum
        "AdamW moments": 2 * FLOAT32 * parameters,
        "activations": share * kept,
        "recomputed block": share * recomputed,
        "raw batches": RAW_BATCHES * step.images * step.side**2 * size.bands * FLOAT32,
        "images, weights, validity": share * pixels * (2 * FLOAT32 + 1),
    }


def blocks(size: Architecture) -> list[Block]:
    """All blocks in their order; those of the decoder see both sequences of a mixture."""
    found = []
    for stage, (depth, window) in enumerate(zip(size.depths, size.windows, strict=True)):
        side, width = size.image_size // (size.patch_size << stage), size.width << stage
        logits = size.heads[stage] * side**2 * min(window, side) ** 2
        found += depth * [Block(side**2 * width, logits)]
    cells = size.grid**2
    logits = 2 * size.decoder_heads * cells**2
    return found + size.decoder_depth * [Block(2 * cells * size.decoder_width, logits)]


def _block(block: Block, mlp_ratio: int, itemsize: int) -> int:
    """Two LayerNorms; query, key, value and the output of attention; softmax; the MLP.

    The exact GELU keeps its argument, erfc, the derivative of erfc, and its value.
    """
    norms = 2 * _layer_norm(block.values, itemsize)
    attention = 4 * itemsize * block.values + (FLOAT32 + itemsize) * block.logits
    mlp = 4 * mlp_ratio * itemsize * block.values
    return norms + attention + mlp


def _layer_norm(values: int, itemsize: int) -> int:
    """Float32: twice the difference from the mean, it itself, the factor; and what comes out."""
    return (3 * FLOAT32 + itemsize) * values


def _outside_of_blocks(size: Architecture, itemsize: int) -> int:
    """Patch embedding, merging, the last norms, and the error of the prediction."""
    side = size.image_size // size.patch_size
    pixels, cells = size.image_size**2 * size.bands, size.grid**2
    merged = sum(
        (side >> stage) ** 2 * (size.width << stage) for stage in range(len(size.depths) - 1)
    )
    last = cells * (size.width << (len(size.depths) - 1))
    decoded = 2 * cells * size.decoder_width
    norms = sum(
        _layer_norm(values, itemsize) for values in (side**2 * size.width, merged, last, decoded)
    )
    return norms + itemsize * pixels + 2 * FLOAT32 * pixels
