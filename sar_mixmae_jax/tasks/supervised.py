"""The fine-tuning objective: raw records to logits, features and losses, on the device."""

import dataclasses
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp

from sar_mixmae_jax.models.heads import DownstreamModel, FloodDetector
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.tasks.base import TASKS
from sar_mixmae_jax.training.train_step import Batch


@dataclasses.dataclass(frozen=True)
class FinetuneObjective:
    """What is tuned for what.

    Attributes:
      task: an entry of `TASKS`.
      model: encoder and head.
      preprocessing: of one date.
    """

    task: str
    model: DownstreamModel
    preprocessing: Preprocessing


def prepare_batch(
    batch: Batch, key: jax.Array | None, tuning: FinetuneObjective
) -> list[jax.Array]:
    """The images of a batch, one array (batch, height, width, band) a date, standardised.

    All dates of a record are flipped alike, if there is a key, else not at all. What one date did
    not measure is nodata on the others too: it would look like a change. Not with `released`
    tiling, whose published model knows no nodata.
    """
    settings, names = tuning.preprocessing, TASKS[tuning.task].images
    together = dataclasses.replace(
        settings,
        mean=settings.mean * len(names),
        std=settings.std * len(names),
        random_flip=settings.random_flip and key is not None,
    )
    db = jnp.concatenate([batch[name] for name in names], axis=-1)
    key = jax.random.key(0) if key is None else key
    prepared = preprocess(db, key, together)
    dates, valid = (
        jnp.split(array, len(names), axis=-1) for array in (prepared.images, prepared.valid)
    )
    if getattr(tuning.model, "tiling", None) == "released":
        return dates
    everywhere = reduce(jnp.logical_and, valid)
    return [jnp.where(everywhere, date, 0.0) for date in dates]


def apply_model(
    model: DownstreamModel, params: Any, images: list[jax.Array], **settings: Any
) -> jax.Array:
    """The model, or one of its methods, of the images of all dates."""
    made = model.apply({"params": params}, *images, **settings)
    assert isinstance(made, jax.Array)
    return made


def finetune_loss(
    params: Any, batch: Batch, key: jax.Array, tuning: FinetuneObjective
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The summed loss of a share, with its number of records and the loss of each."""
    flip_key, drop_key = jax.random.split(key)
    images = prepare_batch(batch, flip_key, tuning)
    logits = apply_model(tuning.model, params, images, key=drop_key)
    losses = TASKS[tuning.task].loss(logits, batch["labels"])
    return losses.sum(), (jnp.asarray(len(losses), jnp.float32), losses)


def predict_outputs(params: Any, batch: Batch, tuning: FinetuneObjective) -> dict[str, jax.Array]:
    """{"logits": (batch, classes), "labels"}, and "evidence" where it exists; nothing random."""
    images = prepare_batch(batch, None, tuning)
    made = {"logits": apply_model(tuning.model, params, images), "labels": batch["labels"]}
    if has_evidence(tuning.model):
        made["evidence"] = apply_model(tuning.model, params, images, method="evidence")
    return made


def has_evidence(model: DownstreamModel) -> bool:
    """Whether the logits of an image are the mean of those of its tiles."""
    return (
        isinstance(model, FloodDetector)
        and (model.tiling, model.pooling) == ("spatial", "mean")
        and model.votes is None
    )


@partial(jax.jit, static_argnums=0)
def init_model_params(tuning: FinetuneObjective, key: jax.Array) -> Any:
    """Parameters before training: {"encoder": …, "head": …}."""
    side, bands = tuning.model.arch.image_size, tuning.model.arch.bands
    images = [jnp.zeros((1, side, side, bands))] * len(TASKS[tuning.task].images)
    return tuning.model.init(key, *images)["params"]


def param_shapes(tuning: FinetuneObjective) -> Any:
    """Shapes and types of {"encoder", "head"}."""
    return jax.eval_shape(partial(init_model_params, tuning), jax.random.key(0))


def encode_features(params: Any, batch: Batch, tuning: FinetuneObjective) -> dict[str, jax.Array]:
    """{"features": (batch, width)} and what else the batch holds besides its images."""
    images = prepare_batch(batch, None, tuning)
    made = apply_model(tuning.model, params, images, method="features")
    rest = {name: batch[name] for name in batch if name not in TASKS[tuning.task].images}
    return {"features": made, **rest}
