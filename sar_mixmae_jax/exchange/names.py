"""The names and layouts of PyTorch's tensors beside those here; `RULES` is the table."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sar_mixmae_jax.mixmae import Architecture

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


def torch_layout(path: str, array: np.ndarray, size: Architecture) -> np.ndarray:
    """A parameter in PyTorch's layout, (output, input) and (output, band, row, column)."""
    if path == CONVOLUTION:
        side = size.patch_size
        return array.reshape(side, side, size.bands, -1).transpose(3, 2, 0, 1)
    return array.T if path.endswith("kernel") else array


def own_layout(path: str, tensor: np.ndarray) -> np.ndarray:
    """The way back: (input, output), of the convolution (row · column · band, output)."""
    if path == CONVOLUTION:
        return tensor.transpose(2, 3, 1, 0).reshape(-1, tensor.shape[0])
    return tensor.T if path.endswith("kernel") else tensor


def torch_parameters(shapes: Any, size: Architecture) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Of every parameter in a tree of shapes: (path here, shape there) by its name there."""
    nothing = np.float32(0)
    return {
        torch_name(path): (
            path,
            torch_layout(path, np.broadcast_to(nothing, leaf.shape), size).shape,
        )
        for path, leaf in flatten_dict(shapes, sep="/").items()
    }


def tree_from(tensors: Mapping[str, np.ndarray], shapes: Any, size: Architecture) -> Any:
    """A tree of parameters, of tensors by PyTorch's names; they must have the right shapes."""
    wanted = torch_parameters(shapes, size)
    flat = {path: own_layout(path, tensors[name]) for name, (path, _) in wanted.items()}
    return unflatten_dict(flat, sep="/")
