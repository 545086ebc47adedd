"""The state of PyTorch's AdamW as that of ours: moments and the number of steps.

The optimizer numbers the trainable tensors by group: first those without weight decay (1-D ones),
then those with; in each the order of the model.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.torch_interop.name_mapping import is_buffer, torch_parameters, tree_from
from sar_mixmae_jax.torch_interop.tensor_files import as_array
from sar_mixmae_jax.utils.errors import InputError, first_line

FIRST, SECOND, STEP = "exp_avg", "exp_avg_sq", "step"
MOST_STEPS = 2**31


class AdamMoments(NamedTuple):
    """What AdamW remembers.

    Attributes:
      mean: of the gradients, a tree like the parameters.
      square: of their squares.
      steps: that were taken.
      rate: of the last one.
    """

    mean: Any
    square: Any
    steps: int
    rate: float


def numbered_params(tensors: Mapping[str, np.ndarray]) -> list[str]:
    """The names of the trainable tensors in the order in which the optimizer numbers them."""
    trained = [name for name in tensors if not is_buffer(name)]
    return sorted(trained, key=lambda name: tensors[name].ndim > 1)  # stable


def read_moments(
    optimizer: Any,
    tensors: Mapping[str, np.ndarray],
    shapes: Any,
    arch: Architecture,
    path: Path,
) -> AdamMoments:
    """Reads the state of an optimizer.

    Args:
      optimizer: {"state", "param_groups"} of AdamW.
      tensors: of the model, in its order.
      shapes: of all parameters here.
      arch: of the model.
      path: of the file, for messages.

    Raises:
      InputError: it is not the state of such an optimizer for this model.
    """
    names = numbered_params(tensors)
    wanted = torch_parameters(shapes, arch)
    try:
        groups, state = optimizer["param_groups"], optimizer["state"]
        numbers = [number for group in groups for number in group["params"]]
        decays = [float(group["weight_decay"]) for group in groups]
        undecayed = sum(tensors[name].ndim <= 1 for name in names)
        if len(groups) != 2 or decays[0] != 0.0 or len(groups[0]["params"]) != undecayed:
            raise ValueError(f"it has {len(groups)} groups with the weight decays {decays}")
        if len({*numbers}) != len(names) or {*state} != {*numbers} or len(numbers) != len(names):
            raise ValueError(f"it has {len(state)} tensors, and the model {len(names)}")
        of = dict(zip(names, (state[number] for number in numbers), strict=True))
        found = {
            key: {name: as_array(name, of[name][key], path) for name in names}
            for key in (FIRST, SECOND)
        }
        steps = {float(of[name][STEP]) for name in names}
        rate = float(groups[1]["lr"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"its optimizer is not the AdamW of a pretraining ({first_line(error)}): expected "
            "group 0 without weight decay and group 1 with; --nooptimizer takes the model alone"
        ) from error
    for key, arrays in found.items():
        for name, array in arrays.items():
            if array.shape != wanted[name][1] or array.dtype != np.float32:
                raise InputError(
                    f"{key} of {name} is {array.dtype}{array.shape}, expected "
                    f"float32{wanted[name][1]}: --nooptimizer takes the model alone"
                )
    done = steps.pop()
    if steps or not (done.is_integer() and 0 <= done < MOST_STEPS):
        raise InputError(
            f"its tensors were trained for {done:g} steps, some for {sorted(steps)[:3]}: expected "
            "one whole number; --nooptimizer takes the model alone"
        )
    mean, square = (tree_from(found[key], shapes, arch) for key in (FIRST, SECOND))
    for tree, what in ((mean, FIRST), (square, SECOND)):
        least = -np.inf if what == FIRST else 0.0
        if not all(np.isfinite(x).all() and x.min() >= least for x in jax.tree.leaves(tree)):
            raise InputError(
                f"its optimizer has {what} that is not finite or negative: --nooptimizer takes the "
                "model alone"
            )
    return AdamMoments(mean, square, int(done), rate)
