"""The names and layouts of PyTorch's tensors beside those here; `RULES` is the table."""

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
"""Paths here and names there, as regular expressions, one after the other."""

CONVOLUTION = "encoder/patch_embed/proj/kernel"


def torch_name(path: str) -> str:
    """The name of a parameter in PyTorch's model, by its path here."""
    for pattern, replacement in RULES:
        path = re.sub(pattern, replacement, path)
    return path


def torch_layout(path: str, array: np.ndarray, arch: Architecture) -> np.ndarray:
    """A parameter in PyTorch's layout, (output, input) and (output, band, row, column)."""
    if path == CONVOLUTION:
        side = arch.patch_size
        return array.reshape(side, side, arch.bands, -1).transpose(3, 2, 0, 1)
    return array.T if path.endswith("kernel") else array


def jax_layout(path: str, tensor: np.ndarray) -> np.ndarray:
    """The way back: (input, output), of the convolution (row · column · band, output)."""
    if path == CONVOLUTION:
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    return tensor.T if path.endswith("kernel") else tensor


def torch_parameters(shapes: Any, arch: Architecture) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Of every parameter in a tree of shapes: (path here, shape there) by its name there."""
    nothing = np.float32(0)
    return {
        torch_name(path): (
            path,
            torch_layout(path, np.broadcast_to(nothing, leaf.shape), arch).shape,
        )
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }


def tree_from(tensors: Mapping[str, np.ndarray], shapes: Any, arch: Architecture) -> Any:
    """A tree of parameters, of tensors by PyTorch's names; they must have the right shapes."""
    wanted = torch_parameters(shapes, arch)
    flat = {path: jax_layout(path, tensors[name]) for name, (path, _) in wanted.items()}
    return unflatten_dict(flat, sep="/")


POSITIONS, DECODER_POSITIONS = "absolute_pos_embed", "decoder_pos_embed"
INDEX = "relative_position_index"
STORED_BUFFERS = "torch_buffers.npz"
"""In a workdir: buffers of the file it was converted from that are not equal to ours bit by bit."""

CLOSE, CLOSE_IN_HALF = 1e-5, 1e-2
"""Position embeddings that differ by less are the same, computed elsewhere or stored in 16 bits."""


def is_buffer(name: str) -> bool:
    """Whether a tensor is none that is learnt."""
    return name in (POSITIONS, DECODER_POSITIONS) or name.endswith(f".{INDEX}")


def make_buffers(arch: Architecture, *, decoder: bool) -> dict[str, np.ndarray]:
    """The buffers of a model by PyTorch's names.

    Args:
      arch: of the model.
      decoder: whether it has one.
    """
    made = {POSITIONS: make_positions(arch.image_size, arch.pretrain_image_size, arch)}
    if decoder:
        embedding = sincos_position_embedding(arch.mask_grid, arch.decoder_embed_dim)
        made[DECODER_POSITIONS] = embedding.reshape(1, -1, arch.decoder_embed_dim)
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        tokens = arch.image_size // (arch.patch_size << stage)
        for block in range(depth):
            index = relative_position_index(min(window, tokens)).astype(np.int64)
            made[f"layers.{stage}.blocks.{block}.attn.{INDEX}"] = index
    return made


def make_positions(
    image_size: int, pretrain_image_size: int | None, arch: Architecture
) -> np.ndarray:
    """(1, tokens, width) position embedding, resized if it was made for another input size."""
    made_for = (pretrain_image_size or image_size) // arch.patch_size
    embedding = sincos_position_embedding(made_for, arch.embed_dim)
    if pretrain_image_size not in (None, image_size):
        embedding = bicubic_resize(embedding, image_size // arch.patch_size)
    return embedding.reshape(1, -1, arch.embed_dim)


def differing_buffers(
    tensors: Mapping[str, np.ndarray], made: Mapping[str, np.ndarray], close: float = CLOSE
) -> dict[str, np.ndarray]:
    """The buffers of a file that are the same as ours but not bit by bit; they go back as they are.

    A file need not have all of them; what was rounded to 16 bits does not go back.

    Raises:
      InputError: a buffer is another one than this project's models have.
    """
    found = {}
    for name, ours in made.items():
        theirs = tensors.get(name)
        if theirs is None:
            continue
        if theirs.shape != ours.shape:
            raise InputError(f"{name} is {theirs.shape}, expected {ours.shape}")
        if not np.allclose(theirs, ours, rtol=0, atol=close):
            raise InputError(
                f"{name} is another one than the fixed one of MixMAE: a model with learnt or "
                "changed positions has no counterpart here"
            )
        if close == CLOSE and not np.array_equal(theirs, ours):
            found[name] = np.array(theirs)
    return found
