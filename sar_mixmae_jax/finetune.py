"""Fine-tuning: `train(config, workdir)`, from an encoder and labelled records to a tuned model."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, mixmae, pretrained
from sar_mixmae_jax.checkpoint import SCORES, steps
from sar_mixmae_jax.data import Patches
from sar_mixmae_jax.errors import InputError, check_name
from sar_mixmae_jax.heads import POOLINGS, TILINGS, Votes, check_tiles
from sar_mixmae_jax.labelled import Labelled, open_labelled, part
from sar_mixmae_jax.mixmae import Architecture
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.preprocess import Preprocessing
from sar_mixmae_jax.pretrained import Pretrained
from sar_mixmae_jax.processes import is_first
from sar_mixmae_jax.step import TrainState, init_state
from sar_mixmae_jax.tasks import TASKS
from sar_mixmae_jax.training import Job, Outcome, run
from sar_mixmae_jax.tuning import Tuning, prepare, share_loss
from sar_mixmae_jax.validation import Validator
from sar_mixmae_jax.workdir import recorded

SMALLEST_VALIDATION_BATCH = 64
"""Without a backward pass there is room for more records than in training."""


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Fine-tunes, or goes on where the run in `workdir` was.

    Args:
      config: as made by `configs/finetune.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: asked after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the encoder, the dataset, the workdir or all checkpoints cannot
        be used; what can be known beforehand is refused before anything is written.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    config = complete(config)
    check(config, jax.device_count())
    encoder = find_encoder(config, workdir)
    training, validation = open_splits(config, encoder, config.task)
    Order(len(training), config.batch_size, config.seed)  # enough of them for a batch
    tuning = make_tuning(config, encoder, training)
    check_fit(tuning, training)

    def init(optimizer: optax.GradientTransformation) -> TrainState:
        return init_state(partial(random_params, tuning), optimizer, jax.random.key(config.seed))

    job = Job(
        title=f"{title(config, encoder)} on {training.patches.title}",
        description=describe(config, encoder, training, tuning),
        source=training.patches.source,
        init=init,
        load=partial(with_encoder, tuning=tuning, encoder=encoder),
        share_loss=partial(share_loss, tuning=tuning),
        watcher=Validator(tuning, validation, max(config.batch_size, SMALLEST_VALIDATION_BATCH)),
        look_every=config.validate_every,
        save_every=config.checkpoint_every,
        look_first=False,
        seen=encoder.seen if encoder else "",
    )
    return run(job, config, workdir, stop)


# ---- configuration


def complete(config: ConfigDict) -> ConfigDict:
    """The configuration with the task's metric where none is named.

    Raises:
      InputError: there is no such task.
    """
    check_name(TASKS, config.task, "task")
    config = config.copy_and_resolve_references()
    if config.best_metric is None:
        config.best_metric = f"validation/{TASKS[config.task].best}"
    return config.lock()


def check(config: ConfigDict, devices: int) -> None:
    """Checks all that can be checked before anything is opened.

    Raises:
      InputError: a name or a number in the configuration cannot be used.
    """
    configuration.check_numbers(config)
    configuration.check_batch(config, devices, mixed=False)
    configuration.keep(config)
    check_name(TILINGS, config.tiling, "tiling")
    check_name(POOLINGS, config.pooling, "pooling")
    scores = ("loss", *SCORES[config.task])
    check_name([f"validation/{name}" for name in scores], config.best_metric, "best_metric")
    for field in ("train_split", "validation_split"):
        if any(part.startswith("test") for part in config[field].split("+")):
            raise InputError(
                f"{field} is {config[field]!r}: a model must not see the test split before it is "
                "evaluated; name another one"
            )


# ---- the encoder


def find_encoder(config: ConfigDict, workdir: Path) -> Pretrained | None:
    """The encoder to start from, the same one when a run goes on; None for a random one.

    A pretraining run may have gone on meanwhile, or its checkpoint may be gone or exchanged: what
    counts is the one that this run began with, which its own checkpoints know.

    Raises:
      InputError: there is none, or it is of another variant than was asked for.
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
    encoder = pretrained.find(config.init)
    if config.model.variant not in (None, encoder.variant):
        raise InputError(
            f"{encoder.path} holds the variant {encoder.variant!r}, and model.variant is "
            f"{config.model.variant!r}: leave it out, or choose another --config.init"
        )
    return encoder


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
    windows = wanted.pop("windows", tuple(w * side // size.image_size for w in size.windows))
    for name, value in wanted.items():
        if tuple(np.atleast_1d(value)) != tuple(np.atleast_1d(getattr(size, name))):
            raise InputError(
                f"model.{name} is {value}, and {encoder.path} has {getattr(size, name)}: leave it "
                "out, or start from a random encoder"
            )
    first = size.position_size or size.image_size
    return dataclasses.replace(
        size,
        image_size=side,
        windows=windows,
        position_size=None if first == side else first,
    )


def first_params(tuning: Tuning, encoder: Pretrained | None, key: jax.Array) -> Any:
    """{"encoder", "head"} before the first step; the encoder random, or that of a checkpoint."""
    return with_encoder(random_params(tuning, key), tuning, encoder)


def random_params(tuning: Tuning, key: jax.Array) -> Any:
    """{"encoder", "head"} of a random encoder."""
    model, task = tuning.model, TASKS[tuning.task]
    side, bands = model.size.image_size, model.size.bands
    images = [np.zeros((1, side, side, bands), np.float32)] * len(task.images)
    return jax.jit(lambda key: model.init(key, *images)["params"])(key)


def with_encoder(params: Any, tuning: Tuning, encoder: Pretrained | None) -> Any:
    """The same with the encoder of a checkpoint, if there is one.

    Raises:
      InputError: it is damaged, or of another model.
    """
    if encoder is None:
        return params
    return {**params, "encoder": pretrained.load(encoder, tuning.model.size)}


# ---- the data


def open_splits(
    config: ConfigDict, encoder: Pretrained | None, task: str
) -> tuple[Labelled, Labelled]:
    """What is trained on and what is validated on, with the bands of the encoder.

    Raises:
      InputError: a split cannot be opened, or the fraction of the labels leaves out a class.
    """
    bands = encoder.bands if encoder else config.bands
    opened = []
    for split in (config.train_split, config.validation_split):
        whole = open_labelled(task, config.dataset, config.data_dir, split, bands)
        chosen = part(
            whole,
            config.label_fraction,
            config.label_seed,
            all_classes=split == config.train_split,
        )
        opened.append(chosen)
        if is_first():
            print(f"{split}: {len(chosen)} of {len(whole)} records")
    training, validation = opened
    both = len(np.intersect1d(training.ids, validation.ids))
    if both and is_first():
        logging.warning(
            "%d of %d records of %s are trained on: its scores say nothing of other data",
            both,
            len(validation),
            config.validation_split,
        )
    return training, validation


def statistics_of(encoder: Pretrained | None, patches: Patches) -> dict[str, Any]:
    """Bands, unit and statistics that the model takes for granted, as JSON has it."""
    if encoder is None:
        if patches.unit != "dB":
            raise InputError(
                f"{patches.name} holds {patches.unit}: a random encoder needs statistics in dB, "
                "build the dataset in dB"
            )
        return patches.conventions()
    values = {"mean": list(encoder.mean), "std": list(encoder.std), "of": encoder.statistics_of}
    return {"bands": list(encoder.bands), "unit": "dB", "statistics": values}


def make_tuning(
    config: ConfigDict, encoder: Pretrained | None, split: Labelled, votes: Votes | None = None
) -> Tuning:
    """What is tuned for what.

    Args:
      config: of the run.
      encoder: to start from.
      split: of a dataset of the size and unit that all have.
      votes: how neighbours vote, in place of a linear head.

    Raises:
      InputError: sizes do not fit together.
    """
    size = encoder_size(config, encoder)
    settings: dict[str, Any] = {}
    patches, scene = split.patches, size.image_size
    if split.task == "flood":
        check_tiles(patches.size, size.image_size)
        settings = {"tiling": config.tiling, "pooling": config.pooling}
        scene = patches.size
    model = TASKS[split.task].model(
        size,
        len(split.classes),
        configuration.compute_dtype(config.dtype),
        config.remat,
        config.get("drop_path", 0.0),
        encoder is not None,
        votes,
        **settings,
    )
    values = statistics_of(encoder, patches)["statistics"]
    preprocessing = Preprocessing(
        image_size=scene,
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        fit=config.fit,
        flips=config.flips,
        unit=patches.unit,
    )
    return Tuning(split.task, model, preprocessing)


def check_fit(tuning: Tuning, split: Labelled) -> None:
    """Checks that a record can be read and brought to the model.

    Raises:
      InputError: it cannot be read, or is of a size that does not fit.
    """
    record = split.patches.source[0]
    batch = {
        name: jax.ShapeDtypeStruct((2, *np.shape(value)), value.dtype)
        for name, value in record.items()
        if name != "id"
    }
    jax.eval_shape(partial(prepare, tuning=tuning), batch, jax.random.key(0))


# ---- what is told


def title(config: ConfigDict, encoder: Pretrained | None) -> str:
    """What is tuned, for whom the results are shown."""
    if encoder is None:
        return f"{config.task}: a random encoder"
    weighting = encoder.description["weighting"]
    how = f", weighting {weighting['name']}" if weighting else ""
    return f"{config.task}: {encoder.variant} of step {encoder.description['step']}{how}"


def describe(
    config: ConfigDict, encoder: Pretrained | None, training: Labelled, tuning: Tuning
) -> dict[str, Any]:
    """What is trained on what: all that a stranger needs to use the model, as JSON has it."""
    description = {
        "config": json.loads(config.to_json_best_effort()),
        "dataset": training.patches.describe(),
        "model": {
            "variant": encoder.variant if encoder else config.model.variant or "base",
            "architecture": dataclasses.asdict(tuning.model.size),
            "dtype": np.dtype(tuning.model.dtype).name,
            "task": training.task,
            "classes": list(training.classes),
            **statistics_of(encoder, training.patches),
            "pretrained": encoder.description if encoder else None,
        },
    }
    return json.loads(json.dumps(description))
