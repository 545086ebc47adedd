"""Names and layouts of the tensors in PyTorch and of the parameters here; `RULES` is the table.

Buffers of the PyTorch models (position embeddings, relative position indices) are computed, not
stored: they have no counterpart among the parameters.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.layers import sincos_position_embedding
from sar_mixmae_jax.models.resize import bicubic_resize
from sar_mixmae_jax.models.swin import relative_position_index
from sar_mixmae_jax.utils.errors import InputError

RULES = (
    (r"^encoder/stage_(\d+)_block_(\d+)/attn/", r"layers.\1.blocks.\2.attn."),
    (r"^encoder/stage_(\d+)_block_(\d+)/", r"layers.\1.blocks.\2."),
    (r"^encoder/merge_(\d+)/", r"layers.\1.downsample."),
    (r"^encoder/", ""),
    (r"^decoder/block_(\d+)/(qkv|proj)/", r"decoder_blocks.\1.attn.\2."),
    (r"^decoder/block_(\d+)/", r"decoder_blocks.\1."),
    (r"^decoder/mask_token$", "mask_token"),
    (r"^decoder/", "decoder_"),
    (r"bias_table$", "relative_position_bias_table"),
    (r"(scale|kernel)$", "weight"),
    ("/", "."),
)
"""Substitutions from a parameter path here to the name in PyTorch, applied in order."""

CONVOLUTION = "encoder/patch_embed/proj/kernel"
POSITIONS, DECODER_POSITIONS = "absolute_pos_embed", "decoder_pos_embed"
INDEX = "relative_position_index"

TOLERANCE, TOLERANCE_16_BIT = 1e-5, 1e-2
"""Largest difference of equal position embeddings, in float32 and after rounding to 16 bits."""


# ---- parameters


def torch_name(path: str) -> str:
    """Return the name in PyTorch of the parameter at a path."""
    for pattern, replacement in RULES:
        path = re.sub(pattern, replacement, path)
    return path


def torch_layout(path: str, array: np.ndarray, arch: Architecture) -> np.ndarray:
    """Return a parameter in PyTorch's layout: (out, in), or (out, band, row, column)."""
    if path == CONVOLUTION:
        side = arch.patch_size
        return array.reshape(side, side, arch.bands, -1).transpose(3, 2, 0, 1)
    return array.T if path.endswith("kernel") else array


def jax_layout(path: str, tensor: np.ndarray) -> np.ndarray:
    """Return a tensor in the layout used here: (in, out), or (row * column * band, out)."""
    if path == CONVOLUTION:
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    return tensor.T if path.endswith("kernel") else tensor


def torch_parameters(shapes: Any, arch: Architecture) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return (path here, shape in PyTorch) of every parameter, by its name in PyTorch.

    Args:
      shapes: tree of parameter shapes.
      arch: architecture of the model.
    """
    zero = np.float32(0)
    return {
        torch_name(path): (path, torch_layout(path, np.broadcast_to(zero, leaf.shape), arch).shape)
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }


def tree_from(tensors: Mapping[str, np.ndarray], shapes: Any, arch: Architecture) -> Any:
    """Return a tree of parameters, from tensors by PyTorch's names with checked shapes.

    Contiguous tensors are copied: JAX may use their memory as it is, and one of them would keep the
    whole file mapped.
    """
    parameters = torch_parameters(shapes, arch)
    flat = {path: jax_layout(path, tensors[name]) for name, (path, _) in parameters.items()}
    owned = {path: a.copy() if a.flags.c_contiguous else a for path, a in flat.items()}
    return unflatten_dict(owned, sep="/")


# ---- buffers


def make_buffers(arch: Architecture, *, decoder: bool) -> dict[str, np.ndarray]:
    """Return the buffers of a model by PyTorch's names.

    Args:
      arch: architecture of the model.
      decoder: whether it has one.
    """
    buffers = {POSITIONS: make_positions(arch.image_size, arch.pretrain_image_size, arch)}
    if decoder:
        embedding = sincos_position_embedding(arch.mask_grid, arch.decoder_embed_dim)
        buffers[DECODER_POSITIONS] = embedding.reshape(1, -1, arch.decoder_embed_dim)
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        tokens = arch.image_size // (arch.patch_size << stage)
        for block in range(depth):
            index = relative_position_index(min(window, tokens)).astype(np.int64)
            buffers[f"layers.{stage}.blocks.{block}.attn.{INDEX}"] = index
    return buffers


def make_positions(
    image_size: int, pretrain_image_size: int | None, arch: Architecture
) -> np.ndarray:
    """Return the (1, tokens, width) position embedding, resized if made for another input size."""
    side = (pretrain_image_size or image_size) // arch.patch_size
    embedding = sincos_position_embedding(side, arch.embed_dim)
    if pretrain_image_size not in (None, image_size):
        embedding = bicubic_resize(embedding, image_size // arch.patch_size)
    return embedding.reshape(1, -1, arch.embed_dim)


def check_buffers(
    tensors: Mapping[str, np.ndarray],
    buffers: Mapping[str, np.ndarray],
    tolerance: float = TOLERANCE,
) -> None:
    """Raise unless the buffers of a file, as far as it has them, are those of this project.

    Args:
      tensors: tensors of the file.
      buffers: of `make_buffers`.
      tolerance: largest difference that rounding explains.

    Raises:
      InputError: names a buffer with another shape or other values.
    """
    for name, expected in buffers.items():
        stored = tensors.get(name)
        if stored is None:
            continue
        if stored.shape != expected.shape:
            raise InputError(f"{name} is {stored.shape}, expected {expected.shape}")
        if not np.allclose(stored, expected, rtol=0, atol=tolerance):
            raise InputError(
                f"{name} differs from the fixed one of MixMAE: models with learned or changed "
                "positions cannot be converted"
            )
