"""The fine-tuning objective: raw records to logits, features and losses, on the device."""

import dataclasses
from collections.abc import Mapping
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.models.heads import DownstreamModel
from sar_mixmae_jax.models.initialisers import initial_params
from sar_mixmae_jax.objectives.preprocess import (
    Preprocessing,
    augment,
    preprocess,
    resize_labels,
)
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.utils.errors import InputError

Batch = Mapping[str, jax.Array]
"""(batch, …) fields of records by name."""


@dataclasses.dataclass(frozen=True)
class FinetuneObjective:
    """Task, model and preprocessing of a fine-tuning run; hashable, so that it can be jitted with.

    Attributes:
      task: the task.
      model: encoder and head.
      preprocessing: preprocessing of one date.
      independent_flips: bool, whether each date of a record is flipped on its own, as in the
        released code.
      freeze_encoder: bool, whether only the head is trained.
    """

    task: Task
    model: DownstreamModel
    preprocessing: Preprocessing
    independent_flips: bool = False
    freeze_encoder: bool = False


def finetune_loss(
    params: Any, batch: Batch, key: jax.Array, objective: FinetuneObjective
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Return the summed loss of a microbatch, its number of records, and the loss of each.

    Args:
      params: {"encoder", "head"}.
      batch: raw images and labels.
      key: for crops, flips and stochastic depth.
      objective: what is trained.
    """
    flip_key, drop_key = jax.random.split(key)
    images, valid = prepare_dates(batch, flip_key, objective)
    labels = prepare_labels(batch[objective.task.label_field], flip_key, objective)
    if objective.task.labels_per_pixel:
        labels = jnp.where(measured_on_all_dates(valid), labels, NOT_LABELLED)
    if objective.freeze_encoder:
        params = {**params, "encoder": jax.lax.stop_gradient(params["encoder"])}
    logits = apply_model(objective.model, params, images, key=drop_key)
    losses = objective.task.loss(logits, labels)
    return losses.sum(), (jnp.asarray(len(losses), jnp.float32), losses)


def predict_outputs(
    params: Any, batch: Batch, objective: FinetuneObjective
) -> dict[str, jax.Array]:
    """Return `Task.record_outputs` and `Task.extra_outputs`; nothing is random.

    Args:
      params: {"encoder", "head"}.
      batch: raw images and labels.
      objective: what was trained.

    Returns:
      (batch, …) arrays: "logits" (batch, classes), "labels", and further ones.
    """
    task, model = objective.task, objective.model
    images, valid = prepare_dates(batch, None, objective)
    logits = apply_model(model, params, images)
    labels = prepare_labels(batch[task.label_field], None, objective)
    return {
        **task.record_outputs(logits, labels, measured_on_all_dates(valid)),
        **task.extra_outputs(model, params, images),
    }


def encode_features(
    params: Any, batch: Batch, objective: FinetuneObjective
) -> dict[str, jax.Array]:
    """Return features of records and the other fields of a batch.

    Args:
      params: {"encoder"}.
      batch: raw images and further fields.
      objective: model and preprocessing.

    Returns:
      "features" (batch, width) float32, and all fields that are no images, labels pooled.
    """
    images = prepare_batch(batch, None, objective)
    features = apply_model(objective.model, params, images, method="features")
    rest = {name: batch[name] for name in batch if name not in objective.task.images}
    if objective.task.label_field in rest:
        labels = prepare_labels(rest.pop(objective.task.label_field), None, objective)
        rest["labels"] = objective.task.pool_labels(labels)
    return {"features": features, **rest}


def prepare_batch(
    batch: Batch, key: jax.Array | None, objective: FinetuneObjective
) -> list[jax.Array]:
    """Return the images of `prepare_dates`."""
    return prepare_dates(batch, key, objective)[0]


def prepare_dates(
    batch: Batch, key: jax.Array | None, objective: FinetuneObjective
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the standardised images of a batch, and where they were measured.

    All dates of a record are flipped alike, unless the objective has `independent_flips`. What one
    date did not measure is nodata on the others too, since it would look like a change; see
    `Task.masks_common_nodata`.

    Args:
      batch: raw images.
      key: for crops, flips and rotations; None: whole images as they are.
      objective: task, model and preprocessing.

    Returns:
      (batch, height, width, band) float32 for each date, and the same shape, bool, True where a
      band was measured.
    """
    settings, names = objective.preprocessing, objective.task.images
    if objective.independent_flips and key is not None:
        return _flip_apart(batch, key, objective)
    together = dataclasses.replace(
        settings,
        mean=settings.mean * len(names),
        std=settings.std * len(names),
        random_flip=settings.random_flip and key is not None,
        random_rotation=settings.random_rotation and key is not None,
        crop_size=None if key is None else settings.crop_size,
    )
    db = jnp.concatenate([batch[name] for name in names], axis=-1)
    key = jax.random.key(0) if key is None else key
    prepared = preprocess(db, key, together)
    dates, valid = (
        jnp.split(array, len(names), axis=-1) for array in (prepared.images, prepared.valid)
    )
    if not objective.task.masks_common_nodata(objective.model):
        return dates, valid
    everywhere = reduce(jnp.logical_and, valid)
    return [jnp.where(everywhere, date, 0.0) for date in dates], valid


def measured_on_all_dates(valid: list[jax.Array]) -> jax.Array:
    """Return where all bands of all dates were measured, (batch, height, width) bool."""
    return reduce(jnp.logical_and, valid).all(-1)


def _flip_apart(
    batch: Batch, key: jax.Array, objective: FinetuneObjective
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Return the same as `prepare_dates`, with flips of their own for each date."""
    dates = [batch[name] for name in objective.task.images]
    if objective.task.masks_common_nodata(objective.model):
        measured = reduce(jnp.logical_and, map(jnp.isfinite, dates))
        dates = [jnp.where(measured, date, jnp.nan) for date in dates]
    keys = jax.random.split(key, len(dates))
    prepared = [
        preprocess(date, date_key, objective.preprocessing)
        for date, date_key in zip(dates, keys, strict=True)
    ]
    return [date.images for date in prepared], [date.valid for date in prepared]


def prepare_labels(
    labels: jax.Array, key: jax.Array | None, objective: FinetuneObjective
) -> jax.Array:
    """Return labels aligned with the images of `prepare_batch`.

    Args:
      labels: (batch, …); per pixel (batch, height, width) integers.
      key: that of `prepare_batch`.
      objective: task and preprocessing.

    Returns:
      The labels as they are; per pixel (batch, size, size) int32, resized to the nearest pixel or
      padded with `NOT_LABELLED`, and cropped, flipped and rotated as the images.

    Raises:
      InputError: per-pixel labels are not (batch, height, width).
    """
    if not objective.task.labels_per_pixel:
        return labels
    if labels.ndim != 3:
        raise InputError(f"labels are of shape {labels.shape}: expected (batch, height, width)")
    settings = objective.preprocessing
    labels = resize_labels(labels, settings.image_size, settings.resize_mode)
    return labels if key is None else augment(labels[..., None], key, settings)[..., 0]


def apply_model(
    model: DownstreamModel, params: Any, images: list[jax.Array], **settings: Any
) -> jax.Array:
    """Return the output of the model, or of one of its methods, for the images of all dates."""
    outputs = model.apply({"params": params}, *images, **settings)
    assert isinstance(outputs, jax.Array)
    return outputs


def init_model_params(objective: FinetuneObjective, key: jax.Array) -> Any:
    """Return parameters before training: {"encoder": …, "head": …}."""
    arch = objective.model.arch
    images = [(1, arch.image_size, arch.image_size, arch.bands)]
    return initial_params(objective.model, key, *images * len(objective.task.images))


def param_shapes(objective: FinetuneObjective) -> Any:
    """Return shapes and types of {"encoder", "head"}."""
    return jax.eval_shape(partial(init_model_params, objective), jax.random.key(0))
