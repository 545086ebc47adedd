"""Pretraining that starts from another one: its parameters, its optimizer, its conventions."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from absl import logging

from sar_mixmae_jax import pretrained
from sar_mixmae_jax.data import Patches
from sar_mixmae_jax.encoders import at_input_size
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.mixmae import Architecture
from sar_mixmae_jax.optimizer import at_first_step
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.resizing import resize_tables
from sar_mixmae_jax.restore import read_part
from sar_mixmae_jax.step import TrainState
from sar_mixmae_jax.weighting import Weighting

INPUT = ("image_size", "position_size", "windows")
"""Fields of an architecture that may be others than before."""


def warn_of_weighting(weighting: Weighting, origin: Pretrained | None) -> None:
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


def with_conventions(patches: Patches, origin: Pretrained | None) -> Patches:
    """A dataset that is standardised as the encoder is used to."""
    if origin is None:
        return patches
    return dataclasses.replace(
        patches, mean=origin.mean, std=origin.std, statistics_of=origin.statistics_of
    )


def size_of(
    size: Architecture, origin: Pretrained | None, windows: tuple[int, ...] | None = None
) -> Architecture:
    """The size of the model that goes on, as an encoder keeps it at another input size.

    Args:
      size: as the configuration has it.
      origin: where to start from; None: nowhere.
      windows: of its stages; None: those of the encoder, which grow with the images.

    Raises:
      InputError: the model is of another size, or there is no decoder.
    """
    if origin is None:
        return size
    if not origin.has_decoder:
        raise InputError(
            f"{origin.path} has no decoder, so no pretraining can go on from it: choose a "
            "checkpoint of pretraining"
        )
    differing = [
        f"{field.name} is {getattr(size, field.name)} and there {getattr(origin.size, field.name)}"
        for field in dataclasses.fields(size)
        if field.name not in INPUT and getattr(size, field.name) != getattr(origin.size, field.name)
    ]
    if differing:
        raise InputError(
            f"{origin.path} is a {origin.variant} of another size ({'; '.join(differing)}): set "
            "config.model to its sizes"
        )
    return at_input_size(origin.size, size.image_size, windows)


def load(state: TrainState, size: Architecture, origin: Pretrained | None) -> TrainState:
    """A first state with what was learnt before; of another input size without the optimizer's.

    Args:
      state: before the first step.
      size: of its model.
      origin: where to start from; None: nowhere.

    Raises:
      InputError: the checkpoint is damaged.
    """
    if origin is None:
        return state
    parts: dict[str, Any] = {"params": {**state.params, "encoder": pretrained.shapes(origin.size)}}
    same = all(getattr(size, name) == getattr(origin.size, name) for name in INPUT)
    moments = same and origin.has_optimizer
    if moments:
        parts["opt_state"] = state.opt_state
    else:
        logging.warning("%s has no optimizer for this model: it starts afresh", origin.path)
    try:
        found, _ = read_part(origin.path, parts)
    except ValueError as error:
        raise InputError(f"{origin.path}: {error}: choose another checkpoint") from error
    encoder = resize_tables(found["params"]["encoder"], state.params["encoder"])
    params = {**found["params"], "encoder": encoder}
    opt_state = at_first_step(found["opt_state"]) if moments else state.opt_state
    return dataclasses.replace(state, params=params, opt_state=opt_state, step=jnp.int32(0))
