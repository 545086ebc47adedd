"""Models that map scenes: the checkpoint of a run as a function of batches of windows."""

import dataclasses
import hashlib
import math
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import sar_mixmae_jax
from sar_mixmae_jax.inference.encoder import (
    encode_batch,
    freeze_encoder,
    inference_preprocessing,
)
from sar_mixmae_jax.inference.evaluator import LoadedModel, load_model, load_params
from sar_mixmae_jax.inference.scene_grid import trained_pixel_size
from sar_mixmae_jax.inference.scene_pipeline import WindowPredictor
from sar_mixmae_jax.inference.window_blending import WindowAxis
from sar_mixmae_jax.models.heads import DownstreamModel, FloodDetector
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, apply_model, prepare_batch
from sar_mixmae_jax.training.batch_predictor import map_predictions
from sar_mixmae_jax.training.config import compute_dtype
from sar_mixmae_jax.training.downstream import pooled_stages
from sar_mixmae_jax.training.sharding import replicate, shard_batch
from sar_mixmae_jax.training.source_checkpoint import SourceCheckpoint, find_source_checkpoint
from sar_mixmae_jax.training.train_step import Batch, CacheablePartial
from sar_mixmae_jax.utils.errors import InputError

TILES_PER_WINDOW = 4
"""Tiles of the encoder along a side of a window of a model with labels per pixel, whose decoder
crosses their borders."""
RELEASED_TILES = 4
"""Tiles along a side of the images that the published code cuts into tiles of two neighbours."""
BATCH_PIXELS = 64 * 128 * 128
"""Pixels of a batch on one device, unless the number of windows is given."""

CAVEATS = "CAVEATS"
"""Tag of a file that does not belong to the identity of a map."""

Kind = Literal["pixels", "windows", "features"]


@dataclasses.dataclass(frozen=True)
class MapModel:
    """A model that maps scenes.

    Attributes:
      kind: "pixels": class probabilities of every pixel; "windows": of every window; "features":
        tokens.
      predictor: predictor of windows.
      overlap: overlap of neighbouring windows, pixels.
      bands: names of the bands of the windows, in order.
      dates: names of the dates of a scene, () for a single one.
      classes: names of the classes; () for features.
      tags: facts about the model for the tags of files, by name.
      pixel_size: side of the pixels of the training data, metres; None: unknown.
      quantity: quantity of the training data, "sigma0" or "gamma0"; "": unknown.
      exclusive: a window has exactly one of the classes; False: any number of them.
      title: model and training data, for pictures.
    """

    kind: Kind
    predictor: WindowPredictor
    overlap: int
    bands: tuple[str, ...]
    dates: tuple[str, ...]
    classes: tuple[str, ...]
    tags: dict[str, str]
    pixel_size: float | None = None
    quantity: str = ""
    exclusive: bool = True
    title: str = ""


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Checkpoint and windows of a model that maps.

    Attributes:
      workdir: working directory of a run.
      which: "best", "latest", or a step.
      features: map the tokens of the encoder, of a run of any kind.
      window: side of the windows, pixels; None: of what an input of the model covered in training,
        or several inputs for labels per pixel.
      overlap: overlap of neighbouring windows, pixels; None: half an input for labels per pixel,
        else 0.
      batch_size: windows at a time, of all devices; None: by their size.
    """

    workdir: Path
    which: str
    features: bool = False
    window: int | None = None
    overlap: int | None = None
    batch_size: int | None = None


def load_map_model(choice: ModelChoice) -> MapModel:
    """Load a checkpoint for mapping.

    Raises:
      InputError: there is no such checkpoint, it is damaged, holds no model for maps, or the
        windows do not fit it.
    """
    if choice.features:
        return _features_model(choice)
    model = load_model(choice.workdir, choice.which)
    task = get_task(model.task).configure(model.config)
    arch, resize_mode = model.source_checkpoint.arch, model.config.resize_mode
    network = _network(model, task)
    window, overlap = choice.window, choice.overlap
    if task.labels_per_pixel:
        window = window or TILES_PER_WINDOW * arch.image_size
        size = math.ceil(window / arch.image_size) * arch.image_size
        overlap = min(arch.image_size, window) // 2 if overlap is None else overlap
    elif isinstance(network, FloodDetector) and network.tiling == "released":
        size = RELEASED_TILES * arch.image_size
    else:
        size = arch.image_size
        window = window or trained_window(model.source_checkpoint, resize_mode)
    window, overlap = window or size, overlap or 0
    cell = 1 if task.labels_per_pixel else window
    check_windows(window, overlap, cell, size if resize_mode == "pad" else None)
    objective = FinetuneObjective(
        task, network, inference_preprocessing(model.source_checkpoint, size, resize_mode)
    )
    params = replicate(load_params(model, objective))
    classes = model.source_checkpoint.metadata.model.classes
    channels = classes
    if task.labels_per_pixel and len(classes) == 2:
        channels = classes[1:]
    elif task.exclusive and len(classes) == 2:
        channels = (*classes, "evidence")
    predictor = _predictor(
        CacheablePartial(_class_probabilities, (objective, window)),
        "values",
        params,
        task.images,
        window=window,
        cell=cell,
        channels=channels,
        batch_size=choice.batch_size,
    )
    dataset = model.source_checkpoint.metadata.dataset
    tags = model_tags(model.source_checkpoint, window, overlap, model.task)
    return MapModel(
        kind="pixels" if task.labels_per_pixel else "windows",
        predictor=predictor,
        overlap=overlap,
        bands=model.source_checkpoint.bands,
        dates=task.images if len(task.images) > 1 else (),
        classes=classes,
        tags=tags,
        pixel_size=trained_pixel_size(dataset),
        quantity=dataset.quantity,
        exclusive=task.exclusive,
        title=f"{tags['MODEL']}, trained on {dataset.title}",
    )


def trained_window(source: SourceCheckpoint, resize_mode: str) -> int:
    """Return the side in pixels of the part of a scene that an input of the encoder covers.

    Where images were resized to the input in training, it is their side; otherwise, and for runs
    whose description does not hold that, the input size.
    """
    model, side = source.metadata.model, source.metadata.dataset.record_size
    tiles = model.task is not None and get_task(model.task).cuts_tiles
    return source.arch.image_size if side is None or tiles or resize_mode == "pad" else side


def check_windows(window: int, overlap: int, cell: int, largest: int | None) -> None:
    """Check that a scene can be cut into windows which fit a model.

    Args:
      window: side, pixels.
      overlap: overlap of neighbouring windows, pixels.
      cell: side of a cell of the output, pixels.
      largest: largest window that the model takes, pixels; None: any.

    Raises:
      InputError: they do not fit.
    """
    WindowAxis(window, window, overlap, cell)
    if largest is not None and window > largest:
        raise InputError(
            f"found windows of {window} px, expected at most {largest} px, to which this model "
            "pads: give a smaller --window"
        )


def _network(model: LoadedModel, task: Task) -> DownstreamModel:
    """Return the network of a checkpoint.

    Raises:
      InputError: its configuration does not fit.
    """
    metadata, config = model.source_checkpoint.metadata, model.config
    return task.make_model(
        metadata.model.architecture,
        len(metadata.model.classes),
        config,
        dtype=compute_dtype(config.dtype),
        votes=metadata.model.votes,
        stages=pooled_stages(config),
    )


def _features_model(choice: ModelChoice) -> MapModel:
    """Return a model that maps the tokens of an encoder; see `load_map_model`."""
    overlap = choice.overlap or 0
    source = find_source_checkpoint(choice.workdir, choice.which)
    encoder = freeze_encoder(source)
    window = choice.window
    if window is None:  # whole tokens
        side = trained_window(source, encoder.resize_mode)
        window = -(-side // encoder.grid) * encoder.grid
    if window % encoder.grid:
        raise InputError(
            f"found windows of {window} px, expected a multiple of {encoder.grid}, the tokens "
            "along their sides"
        )
    check_windows(window, overlap, window // encoder.grid, None)
    settings = inference_preprocessing(source, encoder.image_size, encoder.resize_mode)
    if window != encoder.image_size:  # padding would move the tokens
        settings = dataclasses.replace(settings, resize_mode="resize")
    predictor = _predictor(
        CacheablePartial(encode_batch, (encoder.model, settings, "tokens")),
        "tokens",
        encoder.params,
        ("backscatter",),
        window=window,
        cell=window // encoder.grid,
        channels=tuple(f"feature {number}" for number in range(encoder.width)),
        batch_size=choice.batch_size,
    )
    tags = model_tags(source, window, overlap, "features")
    dataset = source.metadata.dataset
    return MapModel(
        kind="features",
        predictor=predictor,
        overlap=overlap,
        bands=encoder.bands,
        dates=(),
        classes=(),
        tags=tags,
        pixel_size=trained_pixel_size(dataset),
        quantity=dataset.quantity,
    )


def _predictor(
    function: CacheablePartial,
    output: str,
    params: Any,
    fields: tuple[str, ...],
    *,
    window: int,
    cell: int,
    channels: tuple[str, ...],
    batch_size: int | None,
) -> WindowPredictor:
    """Return a function of windows on all devices.

    Args:
      function: (params, batch) -> {output: (batch, row, column, channel)}.
      output: name of the output.
      params: on all devices.
      fields: names of the dates in a batch.
      window: see `WindowPredictor`.
      cell: see `WindowPredictor`.
      channels: see `WindowPredictor`.
      batch_size: windows at a time, of all devices; None: by their size.
    """
    devices = jax.device_count()
    if batch_size is None:
        batch_size = devices * max(1, BATCH_PIXELS // (window**2 * len(fields)))
    batch_size = math.ceil(batch_size / devices) * devices
    mapped = map_predictions(function)

    def predict(windows: list[np.ndarray]) -> jax.Array:
        batch = {name: shard_batch(date) for name, date in zip(fields, windows, strict=True)}
        return mapped(params, batch)[output]

    return WindowPredictor(window, cell, channels, batch_size, predict)


def _class_probabilities(
    params: Any, batch: Batch, settings: tuple[FinetuneObjective, int]
) -> dict[str, jax.Array]:
    """Return {"values"}: probabilities of the classes, (batch, row, column, class).

    Per pixel of the windows, of two classes the second; or per window, and with two exclusive
    classes also the logit of the second minus that of the first.
    """
    objective, window = settings
    task = objective.task
    logits = apply_model(objective.model, params, prepare_batch(batch, None, objective))
    if task.labels_per_pixel:
        values = jax.nn.softmax(logits)
        shown = values[..., 1:] if logits.shape[-1] == 2 else values
        return {"values": _fit_window(shown, window, objective.preprocessing.resize_mode)}
    logits = task.pool_logits(logits)
    values = jax.nn.softmax(logits) if task.exclusive else jax.nn.sigmoid(logits)
    if task.exclusive and logits.shape[-1] == 2:
        values = jnp.concatenate([values, logits[:, 1:] - logits[:, :1]], axis=-1)
    return {"values": values[:, None, None]}


def _fit_window(values: jax.Array, window: int, resize_mode: str) -> jax.Array:
    """Return (batch, row, column, class) values of the input of a model for its window."""
    size = values.shape[1]
    if size == window:
        return values
    if resize_mode == "pad":
        start = (size - window) // 2
        return values[:, start : start + window, start : start + window]
    return jax.image.resize(values, (len(values), window, window, values.shape[-1]), "linear")


def model_tags(source: SourceCheckpoint, window: int, overlap: int, task: str) -> dict[str, str]:
    """Return facts about a model for the tags of a file.

    Args:
      source: its checkpoint.
      window: side of the windows, pixels.
      overlap: overlap of the windows, pixels.
      task: name of the task, or "features".
    """
    metadata = source.metadata
    arrays = sorted(metadata.arrays.items())
    weights = [f"{name} {sha}" for name, sha in arrays if name.startswith("params/")]
    return {
        "MODEL": f"{metadata.model.variant}, {source.path.parents[1].name}, step {metadata.step}",
        "TASK": task,
        "WEIGHTS_SHA256": hashlib.sha256("\n".join(weights).encode()).hexdigest(),
        "TRAINED_ON": metadata.dataset.name,
        CAVEATS: "; ".join(metadata.dataset.caveats) or "none",
        "DATASET_CHECKSUM": metadata.dataset.checksum or "unknown",
        "INPUT_BANDS": ",".join(metadata.model.bands),
        "WINDOW": f"{window} px, overlap {overlap} px",
        "TIFFTAG_SOFTWARE": f"sar-mixmae-jax {sar_mixmae_jax.__version__}",
    }
