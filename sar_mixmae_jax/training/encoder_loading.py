"""Encoder of a checkpoint in another model: which one, its architecture, its parameters."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.resize import change_encoder_bands, resize_position_tables
from sar_mixmae_jax.training.config import model_sizes
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.source_checkpoint import (
    SourceCheckpoint,
    change_of_bands,
    encoder_param_shapes,
    resize_architecture,
    resolve_source_checkpoint,
)
from sar_mixmae_jax.utils.errors import InputError

DEFAULT_VARIANT = "base"
"""Variant of a random encoder where none is named."""


def resolve_encoder(config: ConfigDict, workdir: Path) -> SourceCheckpoint | None:
    """Return the encoder to start from, the same one for a resumed run; None for a random one.

    The pretraining may have been continued since, or its checkpoint removed or replaced: a resumed
    run uses the description in its own `run.json`.

    Raises:
      InputError: there is none, or it is of another variant than the configuration.
    """
    source_checkpoint = resolve_source_checkpoint(config, workdir)
    if source_checkpoint is not None and config.model.variant not in (
        None,
        source_checkpoint.variant,
    ):
        raise InputError(
            f"{source_checkpoint.path} holds the variant {source_checkpoint.variant!r}, "
            f"and model.variant is {config.model.variant!r}: leave it out, or choose "
            "another --config.init"
        )
    return source_checkpoint


def encoder_architecture(
    config: ConfigDict, source_checkpoint: SourceCheckpoint | None, bands: int
) -> Architecture:
    """Return the architecture of the encoder at the input size of the configuration.

    Windows grow with the images, as in the published code, unless they are given.

    Args:
      config: configuration of the run.
      source_checkpoint: to start from; None: a random encoder.
      bands: number of bands of the model.

    Raises:
      InputError: the sizes do not fit together, or cannot be those of the checkpoint.
    """
    wanted = {name: value for name, value in model_sizes(config).items() if value is not None}
    variant = wanted.pop("variant", DEFAULT_VARIANT)
    if source_checkpoint is None:
        return architecture.make_architecture(variant, bands=bands, **wanted)
    arch = dataclasses.replace(source_checkpoint.arch, bands=bands)
    side = wanted.pop("image_size", arch.image_size)
    windows = wanted.pop("window_sizes", None)
    for name, value in wanted.items():
        if tuple(np.atleast_1d(value)) != tuple(np.atleast_1d(getattr(arch, name))):
            raise InputError(
                f"model.{name} is {value}, and {source_checkpoint.path} has {getattr(arch, name)}: "
                "leave it out, or start from a random encoder"
            )
    return resize_architecture(arch, side, windows)


def load_encoder_params(
    source_checkpoint: SourceCheckpoint,
    arch: Architecture,
    bands: tuple[str, ...] | None = None,
) -> Any:
    """Load the parameters of an encoder, with tables resized to the windows of `arch`.

    Args:
      source_checkpoint: source checkpoint of the encoder.
      arch: architecture of the model that they are for; widths and depths must be the same.
      bands: names of the bands of that model; None: those of the encoder.

    Raises:
      InputError: the checkpoint is damaged, or of another model.
    """
    like = {"params": {"encoder": encoder_param_shapes(source_checkpoint.arch)}}
    try:
        part = read_subtree(source_checkpoint.path, like)
        params = change_encoder_bands(
            part["params"]["encoder"], *change_of_bands(source_checkpoint, bands)
        )
        return resize_position_tables(params, encoder_param_shapes(arch))
    except ValueError as error:
        raise InputError(f"{source_checkpoint.path}: {error}: choose another checkpoint") from error


def replace_encoder(
    params: Any,
    arch: Architecture,
    source_checkpoint: SourceCheckpoint | None,
    bands: tuple[str, ...],
) -> Any:
    """Return parameters with the encoder of a checkpoint, if there is one.

    Args:
      params: parameters of the model.
      arch: architecture of its encoder.
      source_checkpoint: of `with_bands`.
      bands: names of the bands of the model.

    Raises:
      InputError: it is damaged, or of another model.
    """
    if source_checkpoint is None:
        return params
    return {**params, "encoder": load_encoder_params(source_checkpoint, arch, bands)}
