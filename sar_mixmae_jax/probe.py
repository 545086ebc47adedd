"""Frozen encoders judged in minutes: `train(config, workdir)` by a linear layer, or neighbours.

What comes out is a checkpoint like that of fine-tuning, so that `evaluate` takes it.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, frozen, linear, seen
from sar_mixmae_jax.checkpoint import Checkpoints, clear_unfinished, merit, steps
from sar_mixmae_jax.data import open_patches
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.downstream import (
    check_fit,
    complete,
    describe,
    make_tuning,
    open_splits,
    title,
)
from sar_mixmae_jax.encoders import find_encoder, with_encoder
from sar_mixmae_jax.errors import InputError, look_up
from sar_mixmae_jax.evaluation import KINDS
from sar_mixmae_jax.files import write_whole, writing
from sar_mixmae_jax.frozen import Features
from sar_mixmae_jax.heads import Votes, unit_length, vote
from sar_mixmae_jax.labelled import Labelled, predictions
from sar_mixmae_jax.provenance import describe_start, versions
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.restore import read_part
from sar_mixmae_jax.same_run import settings
from sar_mixmae_jax.step import TrainState
from sar_mixmae_jax.tasks import TASKS, scores, task_of
from sar_mixmae_jax.training import Outcome
from sar_mixmae_jax.tuning import Tuning, random_params, shapes
from sar_mixmae_jax.workdir import RECORD, RunRecord, claim

SCORES = "probe.json"
"""In the workdir: what was tried, and its scores on the validation split."""


class Head(NamedTuple):
    """What stands on the frozen encoder.

    Attributes:
      params: of the head.
      scores: on the validation split.
      tried: scores of everything that was tried, by name.
    """

    params: dict[str, np.ndarray]
    scores: dict[str, float]
    tried: dict[str, dict[str, float]]


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Probes a frozen encoder, unless that is done already.

    Args:
      config: as made by `configs/finetune.py` for `linear_probe` or `knn`.
      workdir: for features, scores and, at last, the checkpoint.
      stop: is not asked; features that are there are not computed again.

    Raises:
      InputError: the configuration, the encoder, the dataset or the workdir cannot be used.
    """
    del stop
    if jax.process_count() > 1:
        raise InputError("probes run in one process: start it without --num_processes")
    method = look_up(METHODS, config.task, "task")
    check_rates(config.probe.learning_rates)
    encoder = find_encoder(config, workdir)
    bands = encoder.bands if encoder else config.bands
    found = open_patches(
        config.dataset, config.data_dir, config.train_split, bands, units=tuple(TO_DB)
    )
    config = complete(config, task_of(found))
    training, validation = open_splits(config, encoder, task_of(found))
    linear_tuning = make_tuning(config, encoder, training)
    check_fit(linear_tuning, training)
    tuning = make_tuning(config, encoder, training, method.votes(config, training))
    description = describe(config, encoder, training, tuning)
    with claim(workdir):
        record = RunRecord(workdir, description)
        clear_unfinished(workdir)
        if not steps(workdir):
            record.add_start(describe_start(0) | {"settings": settings(description)})
            params = random_params(linear_tuning, jax.random.key(config.seed))
            params = with_encoder(params, linear_tuning, encoder)
            name = json.dumps(description["model"]["pretrained"] or config.seed)
            both = read_features(config, workdir, name, linear_tuning, params, training, validation)
            head = method.fit(config, training, validation, *both)
            write_scores(workdir / SCORES, head)
            params = {"encoder": params["encoder"], "head": head.params}
            packed = seen.joined(encoder.seen if encoder else "", training.images())
            save(config, workdir, description, params, head, packed)
            record.note_saved(config.probe.steps)
        last = steps(workdir)[-1]
        params = read_part(last, {"params": shapes(tuning)})[0]["params"]
    files = {"checkpoint": last, "scores": workdir / SCORES, "record of the run": workdir / RECORD}
    state = TrainState(jnp.int32(config.probe.steps), params, (), jnp.zeros(2, jnp.uint32))
    name = f"{title(config, encoder)} on {training.patches.title}"
    return Outcome(name, state, files, finished=True)


def check_rates(rates: Sequence[float]) -> None:
    """Refuses learning rates that nothing can be trained with.

    Raises:
      InputError: there is none, or one is not a positive number up to 1,000.
    """
    if not rates or not all(isinstance(rate, (int, float)) and 0 < rate <= 1e3 for rate in rates):
        raise InputError(
            f"probe.learning_rates is {tuple(rates)}: expected at least one positive number, each "
            "up to 1,000"
        )


def write_scores(path: Path, head: Head) -> None:
    """Writes what was tried, and its scores.

    Raises:
      InputError: it cannot be written.
    """
    told = {"chosen": head.scores, "tried": head.tried}
    with writing(path, "make room and start again; the features are kept"):
        write_whole(path, (json.dumps(told, indent=2) + "\n").encode())


def read_features(
    config: ConfigDict,
    workdir: Path,
    encoder: str,
    tuning: Tuning,
    params: Any,
    *splits: Labelled,
) -> list[Features]:
    """The features of the training and the validation split, computed where they are not there."""
    whole = replicate({"encoder": params["encoder"]})
    at_once = config.batch_size or TASKS[tuning.task].at_once
    return [
        frozen.cached(workdir / f"features-{name}.npz", encoder, tuning, whole, split, at_once)
        for name, split in zip(("train", "validation"), splits, strict=True)
    ]


def fit_linear(
    config: ConfigDict, training: Labelled, validation: Labelled, known: Features, held: Features
) -> Head:
    """The linear layer whose learning rate is best on the validation split."""
    fit = linear.fit(
        training.task,
        known.features,
        known.labels,
        len(training.classes),
        learning_rates=config.probe.learning_rates,
        steps=config.probe.steps,
        batch_size=config.probe.batch_size,
        weight_decay=config.probe.weight_decay,
        seed=config.seed,
    )
    names = [f"learning rate {rate:g}" for rate in config.probe.learning_rates]
    tried = {
        name: judged(validation, logits, held.labels)
        for name, logits in zip(names, fit.logits(held.features), strict=True)
    }
    merits = np.array([merit(tried[name], config.best_metric) for name in names])
    if np.isnan(merits).all():
        logging.warning(
            "%s is undefined on the validation split: the rate is chosen by the loss",
            config.best_metric,
        )
        merits = np.array([merit(tried[name], "validation/loss") for name in names])
    best = int(np.nanargmax(merits))
    params = {"kernel": fit.kernels[best], "bias": fit.biases[best]}
    return Head(params, tried[names[best]], tried)


def fit_neighbours(
    config: ConfigDict, training: Labelled, validation: Labelled, known: Features, held: Features
) -> Head:
    """The features of the training split, which vote by their likeness."""
    votes = votes_of_neighbours(config, training)
    labels = np.eye(len(training.classes))[known.labels] if votes.exclusive else known.labels
    params = {
        "features": np.asarray(unit_length(jnp.asarray(known.features))),
        "labels": labels.astype(np.float32),
    }
    found = judged(validation, vote(votes, params, held.features), held.labels)
    return Head(params, found, {f"{votes.neighbours} neighbours": found})


def votes_of_neighbours(config: ConfigDict, training: Labelled) -> Votes:
    """How the records of the training split vote."""
    exclusive = KINDS[training.task].exclusive
    return Votes(len(training), config.probe.neighbours, config.probe.temperature, exclusive)


class Method(NamedTuple):
    """A way to judge a frozen encoder.

    Attributes:
      fit: makes the head, of the configuration, the splits and their features.
      votes: how neighbours vote, if they do.
    """

    fit: Callable[..., Head]
    votes: Callable[[ConfigDict, Labelled], Votes | None]


METHODS = {
    "linear_probe": Method(fit_linear, lambda config, training: None),
    "knn": Method(fit_neighbours, votes_of_neighbours),
}
"""What can stand on a frozen encoder."""


def judged(split: Labelled, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores of logits for a split, and their loss."""
    made = predictions(split, {"logits": logits, "labels": labels}, {})
    return scores(made, KINDS[made.task].metrics(made))


def save(
    config: ConfigDict,
    workdir: Path,
    description: dict[str, Any],
    params: dict[str, Any],
    head: Head,
    packed: str,
) -> None:
    """Writes the checkpoint.

    Raises:
      InputError: it cannot be written.
    """
    key = jax.random.key_data(jax.random.key(config.seed))
    state = replicate(TrainState(jnp.int32(config.probe.steps), params, (), key))
    metadata = {**description, "seen": packed, "versions": versions()}
    with Checkpoints(workdir, configuration.keep(config)) as checkpoints:
        checkpoints.save(config.probe.steps, state, metadata, head.scores)
