"""The encoder of a checkpoint: what it expects of images, where it is from, its parameters."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from sar_mixmae_jax import seen
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
      has_decoder: whether the decoder of pretraining is beside it.
      has_optimizer: whether the state of an optimizer is.
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
    has_decoder: bool
    has_optimizer: bool


def find(path: str | Path) -> Pretrained:
    """The encoder of a run, of its newest checkpoint that can be read, or of one checkpoint.

    Args:
      path: a workdir, or the folder of a step in its `checkpoints`.

    Raises:
      InputError: there is no checkpoint, or none that can be used.
    """
    if not str(path):
        raise InputError("found no name of a checkpoint, expected the workdir of a run")
    path = Path(path).absolute()
    is_step = path.parent.name == folder(path).name and path.name.isdigit()
    try:
        candidates = [path] if is_step else steps(path)[::-1]
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise InputError(
            f"{str(path)[:100]} cannot be looked into ({reason}): name the workdir of a run"
        ) from error
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
    """What the metadata of a checkpoint say of its encoder, checked field by field.

    A checksum says that nothing has changed since it was made, not that it was right then.

    Raises:
      ValueError: a value cannot be used.
      KeyError: one is not there.
      TypeError: one is of another kind.
    """
    model, dataset, config, arrays = (
        _of_kind(metadata[name], dict, name) for name in ("model", "dataset", "config", "arrays")
    )
    statistics = _of_kind(model["statistics"], dict, "model.statistics")
    if model["unit"] != "dB":
        raise ValueError(f"its unit is {str(model['unit'])[:50]!r}, expected dB")
    bands = _texts(model["bands"], "model.bands")
    size = architecture(_of_kind(model["architecture"], dict, "model.architecture"))
    if size.bands != len(bands) or len(set(bands)) != len(bands):
        raise ValueError(f"its bands are {bands}, expected {size.bands} different ones")
    mean, std = (_numbers(statistics[name], len(bands), name) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError(f"its std is {std}, expected numbers above 0")
    packed = _of_kind(metadata["seen"], str, "seen")
    seen.overlap(("",), packed)
    description = {
        "checkpoint": str(path),
        "step": metadata["step"],
        "program": _of_kind(config["program"], str, "config.program"),
        "dataset": dataset["name"],
        "dataset_checksum": dataset["checksum"],
        "caveats": list(_texts(dataset["caveats"], "dataset.caveats")),
        "weighting": model.get("weighting"),
        "seed": config["seed"],
        "sha256": _of_kind(arrays["params/encoder/norm/scale"], str, "arrays"),
    }
    if model.get("pretrained") is not None:  # of an encoder that was fine-tuned
        description["pretrained"] = model["pretrained"]
    check_origin(description)
    return Pretrained(
        path=path,
        size=size,
        variant=_of_kind(model["variant"], str, "model.variant"),
        bands=bands,
        mean=mean,
        std=std,
        statistics_of=_of_kind(statistics["of"], str, "statistics.of"),
        description=description,
        seen=packed,
        has_decoder=any(name.startswith("params/decoder/") for name in arrays),
        has_optimizer=any(name.startswith("opt_state/") for name in arrays),
    )


def check_origin(description: Any) -> None:
    """Refuses a `Pretrained.description` that is none, or one of those it names as its own origin.

    Args:
      description: as a file has it; None where there is none.

    Raises:
      TypeError: names the field.
    """
    where = "model.pretrained"
    while description is not None:
        _of_kind(description, dict, where)
        for name, kind in {"checkpoint": str, "step": int, "dataset": str}.items():
            _of_kind(description.get(name), kind, f"{where}.{name}")
        if description.get("dataset_checksum") is not None:
            _of_kind(description["dataset_checksum"], str, f"{where}.dataset_checksum")
        if description.get("weighting") is not None:
            weighting = _of_kind(description["weighting"], dict, f"{where}.weighting")
            _of_kind(weighting.get("name"), str, f"{where}.weighting.name")
        description, where = description.get("pretrained"), f"{where}.pretrained"


def _of_kind(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"its {what} is {str(value)[:50]!r}, expected a {kind.__name__}")
    return value


def _texts(values: Any, what: str) -> tuple[str, ...]:
    return tuple(_of_kind(value, str, what) for value in _of_kind(values, list, what))


def _numbers(values: Any, count: int, what: str) -> tuple[float, ...]:
    numbers = tuple(_of_kind(values, list, what))
    if len(numbers) != count or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in numbers
    ):
        raise ValueError(f"its {what} is {str(values)[:50]}, expected {count} numbers")
    return numbers


def architecture(fields: dict[str, Any]) -> Architecture:
    """The sizes of a model, of what JSON made of them.

    Raises:
      ValueError: they are no sizes.
      TypeError: likewise.
    """
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    if unknown := [name for name, v in sizes.items() if v is None and name != "position_size"]:
        raise TypeError(f"its architecture has no {', '.join(unknown)}")
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
