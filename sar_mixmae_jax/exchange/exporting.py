"""From a checkpoint of this project to a file that PyTorch's models load with `strict=True`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from sar_mixmae_jax import checkpoint, pretrained
from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.exchange import tensor_files
from sar_mixmae_jax.exchange.buffers import buffers
from sar_mixmae_jax.exchange.importing import BUFFERS, shapes_of
from sar_mixmae_jax.exchange.names import to_torch as layout
from sar_mixmae_jax.exchange.names import torch_name
from sar_mixmae_jax.exchange.recognition import Recognised
from sar_mixmae_jax.files import check_writable
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.restore import read_part

DECODER, NEIGHBOURS = "params/decoder/", "params/head/features"


class Exported(NamedTuple):
    """What was made.

    Attributes:
      checkpoint: what of.
      model: what it holds.
      tensors: how many were written.
    """

    checkpoint: Path
    model: Recognised
    tensors: int


def to_torch(workdir: Path, out: Path, which: str = "best") -> Exported:
    """Writes the model of a checkpoint.

    Args:
      workdir: of a run, or of a conversion.
      out: a .pth or .safetensors file.
      which: "best", "latest" or a step.

    Raises:
      InputError: the checkpoint or the file cannot be used; what was there is kept.
    """
    tensor_files.check_suffix(out)
    check_writable(out, "--out")
    path = checkpoint.choose(workdir, which)
    try:
        metadata = checkpoint.read_metadata(path)
        found = pretrained.describe(path, metadata)
        model = model_of(metadata, found)
        like = {"params": shapes_of(model)}
        part, _ = read_part(path, like)
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} cannot be converted ({first_line(error)}): choose another --checkpoint"
        ) from error
    tensors = {
        torch_name(name): layout(name, array, model.size)
        for name, array in flatten_dict(part["params"], sep="/").items()
    }
    tensors |= buffers(model.size, decoder=model.kind == "pretraining")
    tensors |= own_buffers(workdir, tensors)
    tensor_files.write(out, tensors, json.dumps(note(found, model, metadata)))
    return Exported(path, model, len(tensors))


def model_of(metadata: dict[str, Any], found: Pretrained) -> Recognised:
    """What a checkpoint holds.

    Raises:
      InputError: it has no counterpart in PyTorch.
    """
    arrays, model = metadata["arrays"], metadata["model"]
    if NEIGHBOURS in arrays:
        raise InputError(
            f"{found.path} votes by neighbours, which the published models cannot: choose a run of "
            "task=classification, flood or linear_probe"
        )
    if any(name.startswith(DECODER) for name in arrays):
        return Recognised("pretraining", found.variant, found.size, 0)
    task = model.get("task")
    outputs = len(model["classes"]) if task else 0
    return Recognised(task or "encoder", found.variant, found.size, outputs)


def own_buffers(workdir: Path, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The buffers of the file that a conversion came from, where they differ in their last bits.

    Raises:
      InputError: they cannot be read.
    """
    path = workdir / BUFFERS
    if not path.exists():
        return {}
    try:
        with np.load(path, allow_pickle=False) as file:
            own = {name: file[name] for name in file.files}
    except Exception as error:  # of NumPy and zipfile, for whatever is wrong with a file
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): remove it, and buffers are made anew"
        ) from error
    if any(name not in tensors or tensors[name].shape != one.shape for name, one in own.items()):
        raise InputError(f"{path} is of another model: remove it, and buffers are made anew")
    return own


def note(found: Pretrained, model: Recognised, metadata: dict[str, Any]) -> dict[str, Any]:
    """What tensors cannot say, as JSON has it."""
    decoder = model.size.decoder_heads if model.kind == "pretraining" else None
    return {
        "bands": list(found.bands),
        "unit": "dB",
        "statistics": {
            "mean": list(found.mean),
            "std": list(found.std),
            "of": found.statistics_of,
        },
        "variant": found.variant,
        "decoder_heads": decoder,
        "classes": metadata["model"].get("classes"),
        "step": metadata["step"],
        "dataset": metadata["dataset"]["name"],
        "weighting": metadata["model"].get("weighting"),
        "tiling": metadata["config"].get("tiling", "spatial"),
        "pooling": metadata["config"].get("pooling", "mean"),
    }
