"""Resizing of position embeddings and relative-position bias tables to another input size.

The bicubic interpolation of PyTorch, which the published code uses; that of JAX differs by 3 to
8 %.
"""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sar_mixmae_jax.utils.errors import InputError

SHARPNESS = -0.75
"""Coefficient a of the cubic kernel in PyTorch; -0.5 in JAX and in Keys (1981)."""


def bicubic_resize(grid: np.ndarray, side: int) -> np.ndarray:
    """Return (side, side, channel) of (old, old, channel): half-pixel centres, clamped edges."""
    weights = _interpolation_matrix(grid.shape[0], side)
    grid = np.asarray(grid, np.float64)
    rows = np.einsum("ri,ijc->rjc", weights, grid)
    return np.einsum("sj,rjc->rsc", weights, rows).astype(np.float32)


def _interpolation_matrix(old: int, new: int) -> np.ndarray:
    """Return (new, old) weights along one axis."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), index), _cubic_kernel(np.abs(place - (first + tap))))
    return weights


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """Return the cubic convolution kernel of Keys (1981) at distances from 0 to 2."""
    a, d = SHARPNESS, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resize_position_tables(params: Any, shapes: Any) -> Any:
    """Return encoder parameters with bias tables resized to the windows of another input size.

    Args:
      params: of the encoder; the tables are (offsets, heads) and named "bias_table".
      shapes: the expected tree, of arrays or their shapes.

    Raises:
      InputError: something other than the size of a table differs; names it with both shapes.
    """
    tensors, expected = (flatten_dict(tree, sep="/") for tree in (params, shapes))
    if tensors.keys() != expected.keys():
        missing = sorted(expected.keys() - tensors.keys())
        unexpected = sorted(tensors.keys() - expected.keys())
        raise InputError(
            f"the tensors of the encoder are of another model: missing "
            f"{', '.join(missing[:3]) or 'none'}, unexpected {', '.join(unexpected[:3]) or 'none'}"
        )
    resized = {}
    for name, tensor in tensors.items():
        shape = expected[name].shape
        if tensor.shape != shape and name.endswith("bias_table") and tensor.shape[1:] == shape[1:]:
            old, new = (round(length**0.5) for length in (len(tensor), shape[0]))
            table = np.reshape(tensor, (old, old, -1))
            tensor = bicubic_resize(table, new).reshape(new * new, -1)
        if tensor.shape != shape:
            raise InputError(
                f"{name} of the encoder is {tensor.shape}, expected {shape}: the checkpoint is of "
                "another model"
            )
        resized[name] = np.asarray(tensor)
    return unflatten_dict(resized, sep="/")
