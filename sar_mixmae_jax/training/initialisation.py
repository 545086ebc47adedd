"""The encoder of a checkpoint: what it expects of images, where it is from, its parameters."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.mixmae import make_encoder
from sar_mixmae_jax.models.resize import resize_position_tables
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.checkpoint import checkpoint_dir, checkpoint_steps, read_metadata
from sar_mixmae_jax.training.optimizer import at_first_step
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import _of_type, check_source_description
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.workdir import read_run_record
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError, first_line


@dataclasses.dataclass(frozen=True)
class SourceCheckpoint:
    """An encoder in a checkpoint.

    Attributes:
      path: of the checkpoint, a step's folder.
      arch: of the model it was trained in.
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
    arch: Architecture
    variant: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics_of: str
    description: dict[str, Any]
    seen: str
    has_decoder: bool
    has_optimizer: bool


def find_source_checkpoint(path: str | Path) -> SourceCheckpoint:
    """The encoder of a run, of its newest checkpoint that can be read, or of one checkpoint.

    Args:
      path: a workdir, or the folder of a step in its `checkpoints`.

    Raises:
      InputError: there is no checkpoint, or none that can be used.
    """
    if not str(path):
        raise InputError("found no name of a checkpoint, expected the workdir of a run")
    path = Path(path).absolute()
    is_step = path.parent.name == checkpoint_dir(path).name and path.name.isdigit()
    try:
        candidates = [path] if is_step else checkpoint_steps(path)[::-1]
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise InputError(
            f"{str(path)[:100]} cannot be looked into ({reason}): name the workdir of a run"
        ) from error
    if not candidates:
        raise InputError(
            f"{path} holds no checkpoint (looked in {checkpoint_dir(path)}): name the workdir of a "
            "run, or the folder of one of its checkpoints"
        )
    reasons = []
    for candidate in candidates:
        try:
            return read_source_checkpoint(candidate, read_metadata(candidate))
        except (ValueError, KeyError, TypeError) as error:
            reasons.append(f"{candidate.name}: {first_line(error)}")
            logging.warning("%s is not used: %s", candidate, first_line(error))
    raise InputError(f"{path}: no checkpoint can be used ({'; '.join(reasons[:3])})")


def read_source_checkpoint(path: Path, metadata: dict[str, Any]) -> SourceCheckpoint:
    """What the metadata of a checkpoint say of its encoder, checked field by field.

    A checksum says that nothing has changed since it was made, not that it was right then.

    Raises:
      ValueError: a value cannot be used.
      KeyError: one is not there.
      TypeError: one is of another kind.
    """
    model, dataset, config, arrays = (
        _of_type(metadata[name], dict, name) for name in ("model", "dataset", "config", "arrays")
    )
    statistics = _of_type(model["statistics"], dict, "model.statistics")
    if model["unit"] != "dB":
        raise ValueError(f"its unit is {str(model['unit'])[:50]!r}, expected dB")
    bands = _string_tuple(model["bands"], "model.bands")
    arch = architecture_from_json(_of_type(model["architecture"], dict, "model.architecture"))
    if arch.bands != len(bands) or len(set(bands)) != len(bands):
        raise ValueError(f"its bands are {bands}, expected {arch.bands} different ones")
    mean, std = (_numbers(statistics[name], len(bands), name) for name in ("mean", "std"))
    if min(std) <= 0:
        raise ValueError(f"its std is {std}, expected numbers above 0")
    packed = _of_type(metadata["seen"], str, "seen")
    hashing.count_overlap(("",), packed)
    description = {
        "checkpoint": str(path),
        "step": metadata["step"],
        "trainer": _of_type(config["trainer"], str, "config.trainer"),
        "dataset": dataset["name"],
        "dataset_checksum": dataset["checksum"],
        "caveats": list(_string_tuple(dataset["caveats"], "dataset.caveats")),
        "weighting": model.get("weighting"),
        "seed": config["seed"],
        "sha256": _of_type(arrays["params/encoder/norm/scale"], str, "arrays"),
    }
    if model.get("pretrained") is not None:  # of an encoder that was fine-tuned
        description["pretrained"] = model["pretrained"]
    check_source_description(description)
    return SourceCheckpoint(
        path=path,
        arch=arch,
        variant=_of_type(model["variant"], str, "model.variant"),
        bands=bands,
        mean=mean,
        std=std,
        statistics_of=_of_type(statistics["of"], str, "statistics.of"),
        description=description,
        seen=packed,
        has_decoder=any(name.startswith("params/decoder/") for name in arrays),
        has_optimizer=any(name.startswith("opt_state/") for name in arrays),
    )


def _string_tuple(values: Any, what: str) -> tuple[str, ...]:
    return tuple(_of_type(value, str, what) for value in _of_type(values, list, what))


def _numbers(values: Any, count: int, what: str) -> tuple[float, ...]:
    numbers = tuple(_of_type(values, list, what))
    if len(numbers) != count or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in numbers
    ):
        raise ValueError(f"its {what} is {str(values)[:50]}, expected {count} numbers")
    return numbers


def architecture_from_json(fields: dict[str, Any]) -> Architecture:
    """The sizes of a model, of what JSON made of them.

    Raises:
      ValueError: they are no sizes.
      TypeError: likewise.
    """
    sizes: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    if unknown := [
        name for name, v in sizes.items() if v is None and name != "pretrain_image_size"
    ]:
        raise TypeError(f"its architecture has no {', '.join(unknown)}")
    return Architecture(**sizes)


def load_encoder_params(pretrained: SourceCheckpoint, arch: Architecture) -> Any:
    """The parameters of the encoder, resized where `arch` has other windows.

    Args:
      pretrained: where they are.
      arch: of the model that they are for; it must have the same widths and depths.

    Raises:
      InputError: the checkpoint is damaged, or of another model.
    """
    like = {"params": {"encoder": encoder_param_shapes(pretrained.arch)}}
    try:
        part, _ = read_subtree(pretrained.path, like)
        return resize_position_tables(part["params"]["encoder"], encoder_param_shapes(arch))
    except ValueError as error:
        raise InputError(f"{pretrained.path}: {error}: choose another checkpoint") from error


def encoder_param_shapes(arch: Architecture) -> Any:
    """Shapes and types of the parameters of an encoder."""
    encoder = make_encoder(arch, jnp.float32, remat=False)
    images = jax.ShapeDtypeStruct((1, arch.image_size, arch.image_size, arch.bands), np.float32)
    return jax.eval_shape(encoder.init, jax.random.key(0), images)["params"]


def resolve_encoder(config: ConfigDict, workdir: Path) -> SourceCheckpoint | None:
    """The encoder to start from, the same one when a run goes on; None for a random one.

    A pretraining run may have gone on meanwhile, or its checkpoint may be gone or exchanged: what
    counts is the one that this run began with, which its own checkpoints know.

    Raises:
      InputError: there is none, or it is of another variant than was asked for.
    """
    encoder = resolve_source_checkpoint(config, workdir)
    if encoder is not None and config.model.variant not in (None, encoder.variant):
        raise InputError(
            f"{encoder.path} holds the variant {encoder.variant!r}, and model.variant is "
            f"{config.model.variant!r}: leave it out, or choose another --config.init"
        )
    return encoder


def resolve_source_checkpoint(config: ConfigDict, workdir: Path) -> SourceCheckpoint | None:
    """As `find_encoder`, of whatever variant.

    Raises:
      InputError: there is none.
    """
    if config.init == "random":
        return None
    record = read_run_record(workdir)
    before = record.get("model", {}).get("pretrained")
    if before and record["config"].get("init") == config.init:
        if checkpoint_steps(workdir):
            return dataclasses.replace(find_source_checkpoint(workdir), description=before)
        if not Path(before["checkpoint"]).exists():
            raise InputError(
                f"{workdir} began with {before['checkpoint']}, which is gone, and saved nothing: "
                "restore it, or choose another --workdir"
            )
        return find_source_checkpoint(before["checkpoint"])
    return find_source_checkpoint(config.init)


def encoder_architecture(config: ConfigDict, encoder: SourceCheckpoint | None) -> Architecture:
    """The sizes of the encoder at the input size of the configuration.

    Windows grow with the images, as in the published code, unless they are given.

    Raises:
      InputError: the sizes do not fit together, or cannot be those of the checkpoint.
    """
    wanted = {name: value for name, value in dict(config.model).items() if value is not None}
    variant = wanted.pop("variant", "base")
    if encoder is None:
        return architecture.make_architecture(variant, bands=len(config.bands), **wanted)
    arch = encoder.arch
    side = wanted.pop("image_size", arch.image_size)
    windows = wanted.pop("window_sizes", None)
    for name, value in wanted.items():
        if tuple(np.atleast_1d(value)) != tuple(np.atleast_1d(getattr(arch, name))):
            raise InputError(
                f"model.{name} is {value}, and {encoder.path} has {getattr(arch, name)}: leave it "
                "out, or start from a random encoder"
            )
    return resize_architecture(arch, side, windows)


def resize_architecture(
    arch: Architecture, side: int, windows: tuple[int, ...] | None = None
) -> Architecture:
    """The same model for images of another size: positions are resized.

    Args:
      arch: of the model.
      side: of images, pixels.
      windows: of its stages; None: they grow with the images.

    Raises:
      InputError: windows or mask cells do not fit.
    """
    grown = tuple(window * side // arch.image_size for window in arch.window_sizes)
    first = arch.pretrain_image_size or arch.image_size
    return dataclasses.replace(
        arch,
        image_size=side,
        window_sizes=windows or grown,
        pretrain_image_size=None if first == side else first,
    )


def replace_encoder(params: Any, arch: Architecture, encoder: SourceCheckpoint | None) -> Any:
    """The same with the encoder of a checkpoint, if there is one.

    Raises:
      InputError: it is damaged, or of another model.
    """
    if encoder is None:
        return params
    return {**params, "encoder": load_encoder_params(encoder, arch)}


INPUT_FIELDS = ("image_size", "pretrain_image_size", "window_sizes")
"""Fields of an architecture that may be others than before."""


def warn_weighting_changed(weighting: Weighting, origin: SourceCheckpoint | None) -> None:
    """Warns where the loss is weighted otherwise than before, if that is known."""
    before = origin.description["weighting"] if origin else None
    now = dataclasses.asdict(weighting)
    if before and {name: before.get(name) for name in ("name", "domain")} != {
        name: now[name] for name in ("name", "domain")
    }:
        logging.warning(
            "the loss was weighted by %s (%s) before and is now by %s (%s): set config.weighting "
            "to go on as before",
            before.get("name"), before.get("domain"), now["name"], now["domain"],
        )  # fmt: skip


def inherit_preprocessing(patches: PatchDataset, origin: SourceCheckpoint | None) -> PatchDataset:
    """A dataset that is standardised as the encoder is used to."""
    if origin is None:
        return patches
    return dataclasses.replace(
        patches, mean=origin.mean, std=origin.std, statistics_of=origin.statistics_of
    )


def continued_architecture(
    arch: Architecture, origin: SourceCheckpoint | None, windows: tuple[int, ...] | None = None
) -> Architecture:
    """The size of the model that goes on, as an encoder keeps it at another input size.

    Args:
      arch: as the configuration has it.
      origin: where to start from; None: nowhere.
      windows: of its stages; None: those of the encoder, which grow with the images.

    Raises:
      InputError: the model is of another size, or there is no decoder.
    """
    if origin is None:
        return arch
    if not origin.has_decoder:
        raise InputError(
            f"{origin.path} has no decoder, so no pretraining can go on from it: choose a "
            "checkpoint of pretraining"
        )
    differing = [
        f"{field.name} is {getattr(arch, field.name)} and there {getattr(origin.arch, field.name)}"
        for field in dataclasses.fields(arch)
        if field.name not in INPUT_FIELDS
        and getattr(arch, field.name) != getattr(origin.arch, field.name)
    ]
    if differing:
        raise InputError(
            f"{origin.path} is a {origin.variant} of another size ({'; '.join(differing)}): set "
            "config.model to its sizes"
        )
    return resize_architecture(origin.arch, arch.image_size, windows)


def load_pretraining_state(
    state: TrainState, arch: Architecture, origin: SourceCheckpoint | None
) -> TrainState:
    """A first state with what was learnt before; of another input size without the optimizer's.

    Args:
      state: before the first step.
      arch: of its model.
      origin: where to start from; None: nowhere.

    Raises:
      InputError: the checkpoint is damaged.
    """
    if origin is None:
        return state
    parts: dict[str, Any] = {
        "params": {**state.params, "encoder": encoder_param_shapes(origin.arch)}
    }
    same = all(getattr(arch, name) == getattr(origin.arch, name) for name in INPUT_FIELDS)
    moments = same and origin.has_optimizer
    if moments:
        parts["opt_state"] = state.opt_state
    else:
        logging.warning("%s has no optimizer for this model: it starts afresh", origin.path)
    try:
        found, _ = read_subtree(origin.path, parts)
    except ValueError as error:
        raise InputError(f"{origin.path}: {error}: choose another checkpoint") from error
    encoder = resize_position_tables(found["params"]["encoder"], state.params["encoder"])
    params = {**found["params"], "encoder": encoder}
    opt_state = at_first_step(found["opt_state"]) if moments else state.opt_state
    return dataclasses.replace(state, params=params, opt_state=opt_state, step=jnp.int32(0))
