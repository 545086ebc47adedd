"""The encoder that a downstream run starts from: which one, and at which sizes."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax import mixmae, pretrained
from sar_mixmae_jax.checkpoint import steps
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.mixmae import Architecture
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.tuning import Tuning
from sar_mixmae_jax.workdir import recorded


def find_encoder(config: ConfigDict, workdir: Path) -> Pretrained | None:
    """The encoder to start from, the same one when a run goes on; None for a random one.

    A pretraining run may have gone on meanwhile, or its checkpoint may be gone or exchanged: what
    counts is the one that this run began with, which its own checkpoints know.

    Raises:
      InputError: there is none, or it is of another variant than was asked for.
    """
    encoder = find_origin(config, workdir)
    if encoder is not None and config.model.variant not in (None, encoder.variant):
        raise InputError(
            f"{encoder.path} holds the variant {encoder.variant!r}, and model.variant is "
            f"{config.model.variant!r}: leave it out, or choose another --config.init"
        )
    return encoder


def find_origin(config: ConfigDict, workdir: Path) -> Pretrained | None:
    """As `find_encoder`, of whatever variant.

    Raises:
      InputError: there is none.
    """
    if config.init == "random":
        return None
    record = recorded(workdir)
    before = record.get("model", {}).get("pretrained")
    if before and record["config"].get("init") == config.init:
        if steps(workdir):
            return dataclasses.replace(pretrained.find(workdir), description=before)
        if not Path(before["checkpoint"]).exists():
            raise InputError(
                f"{workdir} began with {before['checkpoint']}, which is gone, and saved nothing: "
                "restore it, or choose another --workdir"
            )
        return pretrained.find(before["checkpoint"])
    return pretrained.find(config.init)


def encoder_size(config: ConfigDict, encoder: Pretrained | None) -> Architecture:
    """The sizes of the encoder at the input size of the configuration.

    Windows grow with the images, as in the published code, unless they are given.

    Raises:
      InputError: the sizes do not fit together, or cannot be those of the checkpoint.
    """
    wanted = {name: value for name, value in dict(config.model).items() if value is not None}
    variant = wanted.pop("variant", "base")
    if encoder is None:
        return mixmae.architecture(variant, bands=len(config.bands), **wanted)
    size = encoder.size
    side = wanted.pop("image_size", size.image_size)
    windows = wanted.pop("windows", None)
    for name, value in wanted.items():
        if tuple(np.atleast_1d(value)) != tuple(np.atleast_1d(getattr(size, name))):
            raise InputError(
                f"model.{name} is {value}, and {encoder.path} has {getattr(size, name)}: leave it "
                "out, or start from a random encoder"
            )
    return at_input_size(size, side, windows)


def at_input_size(
    size: Architecture, side: int, windows: tuple[int, ...] | None = None
) -> Architecture:
    """The same model for images of another size: positions are resized.

    Args:
      size: of the model.
      side: of images, pixels.
      windows: of its stages; None: they grow with the images.

    Raises:
      InputError: windows or mask cells do not fit.
    """
    grown = tuple(window * side // size.image_size for window in size.windows)
    first = size.position_size or size.image_size
    return dataclasses.replace(
        size,
        image_size=side,
        windows=windows or grown,
        position_size=None if first == side else first,
    )


def with_encoder(params: Any, tuning: Tuning, encoder: Pretrained | None) -> Any:
    """The same with the encoder of a checkpoint, if there is one.

    Raises:
      InputError: it is damaged, or of another model.
    """
    if encoder is None:
        return params
    return {**params, "encoder": pretrained.load(encoder, tuning.model.size)}
