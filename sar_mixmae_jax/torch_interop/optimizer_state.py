"""Conversion of the state of PyTorch's AdamW: moments and the number of steps.

PyTorch numbers the trained tensors by parameter group: first those without weight decay (1-D), then
those with; inside a group in the order in which the model registers its parameters.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.torch_interop.name_mapping import torch_parameters, tree_from
from sar_mixmae_jax.torch_interop.tensor_files import as_array
from sar_mixmae_jax.utils.errors import InputError, first_line

MEAN, SQUARE, STEP = "exp_avg", "exp_avg_sq", "step"
MAX_STEPS = 2**31
WITHOUT = "--nooptimizer converts the model alone"


class AdamMoments(NamedTuple):
    """State of AdamW.

    Attributes:
      mean: first moments, a tree like the parameters.
      square: second moments, likewise.
      steps: int, steps taken.
      rate: float, learning rate of the last step.
    """

    mean: Any
    square: Any
    steps: int
    rate: float


def numbered_params(arch: Architecture) -> list[str]:
    """Return the trained tensors of a pretraining model in the order in which PyTorch numbers them.

    The order is that in which the published class registers its parameters; tensors in a file may
    be stored in any other.
    """
    layers = ["mask_token", *_affine("patch_embed.proj", "patch_embed.norm")]
    for stage, depth in enumerate(arch.depths):
        for block in range(depth):
            layers += _block(f"layers.{stage}.blocks.{block}", ["relative_position_bias_table"])
        if stage < len(arch.depths) - 1:
            merge = f"layers.{stage}.downsample"
            layers += [f"{merge}.reduction.weight", *_affine(f"{merge}.norm")]
    layers += [*_affine("norm"), *_affine("decoder_embed")]
    for block in range(arch.decoder_depth):
        layers += _block(f"decoder_blocks.{block}", [])
    return [*layers, *_affine("decoder_norm"), *_affine("decoder_pred")]


def _affine(*names: str) -> list[str]:
    """Return the names of the weights and biases of some layers."""
    return [f"{name}.{part}" for name in names for part in ("weight", "bias")]


def _block(name: str, tables: list[str]) -> list[str]:
    """Return the names of the parameters of a block; `tables` are those of its attention alone."""
    return [
        *_affine(f"{name}.norm1"),
        *(f"{name}.attn.{table}" for table in tables),
        *_affine(f"{name}.attn.qkv", f"{name}.attn.proj", f"{name}.norm2"),
        *_affine(f"{name}.mlp.fc1", f"{name}.mlp.fc2"),
    ]


def read_moments(
    optimizer: Any,
    shapes: Any,
    arch: Architecture,
    path: Path,
) -> AdamMoments:
    """Convert the state of an optimizer.

    Args:
      optimizer: {"state", "param_groups"} of PyTorch's AdamW.
      shapes: shapes of all parameters here.
      arch: architecture of the model.
      path: path of the file, for messages.

    Raises:
      InputError: it is not the state of such an optimizer for this model.
    """
    torch_shapes = {n: shape for n, (_, shape) in torch_parameters(shapes, arch).items()}
    names = sorted(numbered_params(arch), key=lambda name: len(torch_shapes[name]) > 1)  # stable
    try:
        groups, state = optimizer["param_groups"], optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        decays = [float(group["weight_decay"]) for group in groups]
        undecayed = sum(len(torch_shapes[name]) <= 1 for name in names)
        if len(groups) != 2 or decays[0] != 0.0 or len(groups[0]["params"]) != undecayed:
            raise ValueError(f"it has {len(groups)} groups with the weight decays {decays}")
        if len({*numbers}) != len(names) or {*state} != {*numbers} or len(numbers) != len(names):
            raise ValueError(f"it has {len(state)} tensors, and the model {len(names)}")
        by_name = dict(zip(names, (state[number] for number in numbers), strict=True))
        moments = {
            key: {name: as_array(name, by_name[name][key], path) for name in names}
            for key in (MEAN, SQUARE)
        }
        steps = {float(by_name[name][STEP]) for name in names}
        rate = float(groups[1]["lr"])
    except InputError:
        raise
    except Exception as error:  # any error of a malformed state
        raise InputError(
            f"the optimizer is not the AdamW of a pretraining ({first_line(error)}): expected "
            f"group 0 without weight decay and group 1 with; {WITHOUT}"
        ) from error
    _check_moments(moments, torch_shapes)
    mean, square = (tree_from(moments[key], shapes, arch) for key in (MEAN, SQUARE))
    return AdamMoments(mean, square, _common_step(steps), rate)


def _check_moments(
    moments: dict[str, dict[str, np.ndarray]], shapes: dict[str, tuple[int, ...]]
) -> None:
    """Check moments by key and name of a tensor.

    Raises:
      InputError: an array has another shape or type, is not finite, or negative where squared.
    """
    for key, arrays in moments.items():
        minimum = -np.inf if key == MEAN else 0.0
        for name, array in arrays.items():
            if array.shape != shapes[name] or array.dtype != np.float32:
                raise InputError(
                    f"{key} of {name} is {array.dtype}{array.shape}, expected "
                    f"float32{shapes[name]}: {WITHOUT}"
                )
            if not (np.isfinite(array).all() and array.min() >= minimum):
                raise InputError(
                    f"{key} of {name} has values that are not finite, or negative: {WITHOUT}"
                )


def _common_step(steps: set[float]) -> int:
    """Return the step that all tensors share.

    Raises:
      InputError: they differ, or are not whole numbers.
    """
    step = next(iter(steps))
    if len(steps) > 1 or not (step.is_integer() and 0 <= step < MAX_STEPS):
        raise InputError(
            f"the tensors were trained for {', '.join(f'{s:g}' for s in sorted(steps)[:3])} steps: "
            f"expected one whole number; {WITHOUT}"
        )
    return int(step)
