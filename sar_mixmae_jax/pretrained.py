"""The encoder of a checkpoint: what it expects of images, where it is from, its parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sar_mixmae_jax.checkpoint import folder, read_metadata, steps
from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.mixmae import Architecture, make_encoder
from sar_mixmae_jax.resizing import resize_tables
from sar_mixmae_jax.restore import read_part


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """An encoder in a checkpoint.

    Attributes:
      path: of the checkpoint, a step's folder.
      size: of the model it was trained in.
      variant: its name.
      bands: names of its inputs, in order.
      mean: of each band, dB: what its inputs are standardised with.
      std: of each band, dB.
      statistics_of: what mean and std were computed on.
      description: where it is from, as JSON has it.
      seen: the ids it was pretrained on, see `seen`.
    """

    path: Path
    size: Architecture
    variant: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics_of: str
    description: dict[str, Any]
    seen: str


def find(path: str | Path) -> Pretrained:
    """The encoder of a run, of its newest checkpoint that can be read, or of one checkpoint.

    Args:
      path: a workdir, or the folder of a step in its `checkpoints`.

    Raises:
      InputError: there is no checkpoint, or none that can be used.
    """
    path = Path(path).absolute()
    is_step = path.parent.name == folder(path).name and path.name.isdigit()
    candidates = [path] if is_step else steps(path)[::-1]
    if not candidates:
        raise InputError(
            f"{path} holds no checkpoint (looked in {folder(path)}): name the workdir of a run, or "
            "the folder of one of its checkpoints"
        )
    reasons = []
    for candidate in candidates:
        try:
            return describe(candidate, read_metadata(candidate))
        except (ValueError, KeyError, TypeError) as error:
            reasons.append(f"{candidate.name}: {first_line(error)}")
            logging.warning("%s is not used: %s", candidate, first_line(error))
    raise InputError(f"{path}: no checkpoint can be used ({'; '.join(reasons[:3])})")


def describe(path: Path, metadata: dict[str, Any]) -> Pretrained:
    """What the metadata of a checkpoint say of its encoder.

    Raises:
      ValueError: a value cannot be used.
      KeyError: one is not there.
    """
    model, dataset, config = metadata["model"], metadata["dataset"], metadata["config"]
    statistics = model["statistics"]
    if model["unit"] != "dB":
        raise ValueError(f"its unit is {model['unit']!r}, expected dB")
    before = model.get("pretrained")  # of an encoder that was fine-tuned
    return Pretrained(
        path=path,
        size=architecture(model["architecture"]),
        variant=model["variant"],
        bands=tuple(model["bands"]),
        mean=tuple(statistics["mean"]),
        std=tuple(statistics["std"]),
        statistics_of=statistics["of"],
        description={
            "checkpoint": str(path),
            "step": metadata["step"],
            "program": config["program"],
            "dataset": dataset["name"],
            "dataset_checksum": dataset["checksum"],
            "caveats": dataset["caveats"],
            "weighting": model.get("weighting"),
            "seed": config["seed"],
            "sha256": metadata["arrays"]["params/encoder/norm/scale"],
            **({"pretrained": before} if before else {}),
        },
        seen=metadata["seen"],
    )


def architecture(fields: dict[str, Any]) -> Architecture:
    """The sizes of a model, of what JSON made of them."""
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    return Architecture(**sizes)


def load(pretrained: Pretrained, size: Architecture) -> Any:
    """The parameters of the encoder, resized where `size` has other windows.

    Args:
      pretrained: where they are.
      size: of the model that they are for; it must have the same widths and depths.

    Raises:
      InputError: the checkpoint is damaged, or of another model.
    """
    like = {"params": {"encoder": shapes(pretrained.size)}}
    try:
        part, _ = read_part(pretrained.path, like)
        return resize_tables(part["params"]["encoder"], shapes(size))
    except ValueError as error:
        raise InputError(f"{pretrained.path}: {error}: choose another checkpoint") from error


def shapes(size: Architecture) -> Any:
    """Shapes and types of the parameters of an encoder."""
    encoder = make_encoder(size, jnp.float32, remat=False)
    images = jax.ShapeDtypeStruct((1, size.image_size, size.image_size, size.bands), np.float32)
    return jax.eval_shape(encoder.init, jax.random.key(0), images)["params"]
