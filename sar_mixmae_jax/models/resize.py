"""Bringing what was learnt at one input size to another: position embedding and bias tables.

PyTorch's bicubic interpolation, which the published code uses; JAX's differs by 3 to 8 %.
"""

from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from sar_mixmae_jax.utils.errors import InputError

SHARPNESS = -0.75
"""The free coefficient of the cubic kernel, as PyTorch has it; JAX and Keys (1981) take -0.5."""


def bicubic_resize(grid: np.ndarray, side: int) -> np.ndarray:
    """(old, old, channel) -> (side, side, channel): half-pixel centres, clamped edges."""
    weights = _interpolation_matrix(grid.shape[0], side)
    grid = np.asarray(grid, np.float64)
    rows = np.einsum("ri,ijc->rjc", weights, grid)
    return np.einsum("sj,rjc->rsc", weights, rows).astype(np.float32)


def _interpolation_matrix(old: int, new: int) -> np.ndarray:
    """(new, old) weights along one axis."""
    place = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(place).astype(int)
    weights = np.zeros((new, old))
    for tap in range(-1, 3):
        index = np.clip(first + tap, 0, old - 1)
        np.add.at(weights, (np.arange(new), index), _cubic_kernel(np.abs(place - (first + tap))))
    return weights


def _cubic_kernel(distance: np.ndarray) -> np.ndarray:
    """The cubic convolution kernel at distances from 0 to 2."""
    a, d = SHARPNESS, distance
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resize_position_tables(params: Any, shapes: Any) -> Any:
    """Parameters of an encoder with bias tables resized to the windows of another input size.

    Args:
      params: of the encoder, (offsets, heads) tables by the name "bias_table".
      shapes: the same tree as it is expected, arrays or their shapes.

    Raises:
      InputError: something else than the size of a table differs; it is named with both shapes.
    """
    given, wanted = (flatten_dict(tree, sep="/") for tree in (params, shapes))
    if given.keys() != wanted.keys():
        missing, more = sorted(wanted.keys() - given.keys()), sorted(given.keys() - wanted.keys())
        raise InputError(
            f"the encoder has no {', '.join(missing[:3]) or 'tensor missing'} and has "
            f"{', '.join(more[:3]) or 'none'} more than expected: it is of another model"
        )
    resized = {}
    for name, tensor in given.items():
        shape = wanted[name].shape
        if tensor.shape != shape and name.endswith("bias_table") and tensor.shape[1:] == shape[1:]:
            old, new = (round(length**0.5) for length in (len(tensor), shape[0]))
            table = np.reshape(tensor, (old, old, -1))
            tensor = bicubic_resize(table, new).reshape(new * new, -1)
        if tensor.shape != shape:
            raise InputError(
                f"{name} of the encoder is {tensor.shape}, expected {shape}: it is of another model"
            )
        resized[name] = np.asarray(tensor)
    return unflatten_dict(resized, sep="/")
