"""Resizing of parameters: tables to another input size, filters to other bands.

Position embeddings and relative-position bias tables are resized with the bicubic interpolation of
PyTorch, which the published code uses; that of JAX differs by 3 to 8 %.
"""

from collections.abc import Sequence
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
      params: parameters of the encoder; the tables are (offsets, heads) and named "bias_table".
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


BAND_RULES = ("strict", "subset", "mean")
"""Rules by which parameters for some bands become parameters for others.

Equal bands in another order keep their own by name under every rule.

- strict: others are refused.
- subset: a band keeps its own, by name; those of a new band are 0. The encoder then computes what
  it did where the bands that were dropped, or that are new, are nodata.
- mean: every band has the mean over the old bands; in the patch embedding times their number over
  the new number, so that the tokens of an image whose bands are all equal stay the same.
"""


def check_band_rule(rule: str, old: Sequence[str], new: Sequence[str]) -> None:
    """Check that parameters for some bands can become parameters for others.

    Args:
      rule: an entry of `BAND_RULES`.
      old: names of the bands that the parameters are for.
      new: names of the bands of the model.

    Raises:
      InputError: the rule does not allow it.
    """
    if set(old) == set(new):
        return
    bands = f"the bands {', '.join(old)}, and the model has {', '.join(new)}"
    if rule == "strict":
        raise InputError(
            f"{bands}: set --config.bands to those of the encoder, or --config.init_bands=subset "
            "(filters of a band by its name) or mean"
        )
    if rule == "subset" and not set(old) & set(new):
        raise InputError(f"{bands}, which share none: set --config.init_bands=mean")


def _band_weights(rule: str, old: Sequence[str], new: Sequence[str]) -> np.ndarray:
    """Return (new, old) float32 weights of the parameters of the old bands in those of the new."""
    if rule == "mean" and set(old) != set(new):
        return np.full((len(new), len(old)), 1 / len(old), np.float32)
    return np.array([[one == other for other in old] for one in new], np.float32)


def change_encoder_bands(
    params: Any, old: Sequence[str], new: Sequence[str], rule: str
) -> dict[str, Any]:
    """Return encoder parameters for other bands; only the patch embedding differs.

    Args:
      params: parameters of the encoder; the patch embedding is (patch² * bands, width), bands last.
      old: names of the bands that they are for.
      new: names of the bands of the model.
      rule: an entry of `BAND_RULES`, checked by `check_band_rule`.
    """
    if tuple(old) == tuple(new):
        return dict(params)
    scale = len(old) / len(new) if rule == "mean" else 1.0
    projection = params["patch_embed"]["proj"]
    kernel = np.asarray(projection["kernel"])
    pixels = kernel.reshape(-1, len(old), kernel.shape[-1])
    changed = np.einsum("no,pow->pnw", np.float32(scale) * _band_weights(rule, old, new), pixels)
    projection = {**projection, "kernel": changed.reshape(-1, kernel.shape[-1])}
    return {**params, "patch_embed": {**params["patch_embed"], "proj": projection}}


def change_decoder_bands(
    params: Any, old: Sequence[str], new: Sequence[str], rule: str
) -> dict[str, Any]:
    """Return decoder parameters for other bands; only the prediction head differs.

    Arguments as `change_encoder_bands`; kernel and bias of the head end with (unit² * bands).
    """
    if tuple(old) == tuple(new):
        return dict(params)
    weights = _band_weights(rule, old, new)
    head = {}
    for name, values in params["pred"].items():
        pixels = np.asarray(values).reshape(*values.shape[:-1], -1, len(old))
        head[name] = np.einsum("no,...o->...n", weights, pixels).reshape(*values.shape[:-1], -1)
    return {**params, "pred": head}
