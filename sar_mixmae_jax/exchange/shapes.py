"""The tensors that a model of a kind and size has, and whether a file holds just these."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from sar_mixmae_jax import pretrained
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.exchange.names import torch_parameters
from sar_mixmae_jax.exchange.recognition import NAMED, Recognised
from sar_mixmae_jax.mixmae import MixMAE, random_params


def shapes_of(found: Recognised) -> Any:
    """Shapes and types of the parameters of a model, by part."""
    if found.has_decoder:
        return jax.eval_shape(partial(random_params, MixMAE(found.size)), jax.random.key(0))
    parts = {"encoder": pretrained.shapes(found.size)}
    if found.outputs:
        kernel = jax.ShapeDtypeStruct((found.size.features, found.outputs), np.float32)
        bias = jax.ShapeDtypeStruct((found.outputs,), np.float32)
        parts["head"] = {"kernel": kernel, "bias": bias}
    return parts


def check_tensors(
    tensors: Mapping[str, np.ndarray],
    shapes: Any,
    found: Recognised,
    known: Iterable[str],
    *,
    encoder_only: bool,
) -> None:
    """Compares the tensors of a file with those of the model that it seems to hold.

    Args:
      tensors: of the file.
      shapes: of the parameters of the model.
      found: the model.
      known: names of its buffers, which may be there.
      encoder_only: whether a decoder or a head is left aside.

    Raises:
      InputError: names what is missing, what is too much, or what has another shape.
    """
    wanted = torch_parameters(shapes, found.size)
    parameters = {*tensors} - {*known}
    if encoder_only:
        parameters = {name for name in parameters if not name.startswith(("decoder_", "head."))}
        parameters -= {"mask_token"}
    missing, unexpected = wanted.keys() - parameters, parameters - wanted.keys()
    if missing or unexpected:
        raise InputError(
            f"its tensors are not those of {found.variant} ({found.kind}): missing "
            f"{listed(missing)}; unexpected {listed(unexpected)}: choose another file"
        )
    for name, (_, shape) in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise InputError(
                f"{name} is {tensor.dtype}{tensor.shape}, expected float32{shape}: choose another "
                "file"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"{name} is not finite: the training diverged, choose another file")


def listed(names: Iterable[str]) -> str:
    """The first of some names, and how many more there are."""
    every = sorted(names)
    more = f" and {len(every) - NAMED} more" if len(every) > NAMED else ""
    return (", ".join(name[:100] for name in every[:NAMED]) or "none") + more
