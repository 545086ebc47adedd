"""Frozen encoders judged in minutes: `train(config, workdir)` by a linear layer, or neighbours.

What comes out is a checkpoint like that of fine-tuning, so that `evaluate` takes it.
"""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, frozen, linear
from sar_mixmae_jax.checkpoint import Checkpoints, clear_unfinished, steps
from sar_mixmae_jax.data import open_patches
from sar_mixmae_jax.devices import replicate
from sar_mixmae_jax.errors import InputError, look_up
from sar_mixmae_jax.files import write_whole
from sar_mixmae_jax.finetune import (
    check_fit,
    describe,
    find_encoder,
    first_params,
    make_tuning,
    open_splits,
    title,
)
from sar_mixmae_jax.frozen import Features
from sar_mixmae_jax.heads import Votes, unit_length, vote
from sar_mixmae_jax.labelled import Labelled, predictions
from sar_mixmae_jax.provenance import describe_start, versions
from sar_mixmae_jax.radiometry import TO_DB
from sar_mixmae_jax.same_run import settings
from sar_mixmae_jax.step import TrainState
from sar_mixmae_jax.tasks import TASKS, scores, task_of
from sar_mixmae_jax.training import Outcome
from sar_mixmae_jax.workdir import RECORD, RunRecord, claim

SCORES = "probe.json"
"""In the workdir: what was tried, and its scores on the validation split."""
TRAINING = ("learning_rates", "steps", "batch_size", "weight_decay")
"""Fields of `config.probe` that are about training."""


class Head(NamedTuple):
    """What stands on the frozen encoder.

    Attributes:
      params: of the head.
      scores: on the validation split.
      tried: scores of everything that was tried, by name.
      votes: how neighbours vote, if they do.
    """

    params: dict[str, np.ndarray]
    scores: dict[str, float]
    tried: dict[str, dict[str, float]]
    votes: Votes | None


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
    """Probes a frozen encoder, unless that is done already.

    Args:
      config: as made by `configs/finetune.py` for `linear_probe` or `knn`.
      workdir: for features, scores and the checkpoint.
      stop: is not asked; features that are there are not computed again.

    Raises:
      InputError: the configuration, the encoder, the dataset or the workdir cannot be used.
    """
    del stop
    if jax.process_count() > 1:
        raise InputError("probes run in one process: start it without --num_processes")
    method = look_up(METHODS, config.task, "task")
    configuration.check_numbers(config)
    encoder = find_encoder(config, workdir)
    bands = encoder.bands if encoder else config.bands
    found = open_patches(
        config.dataset, config.data_dir, config.train_split, bands, units=tuple(TO_DB)
    )
    config = with_metric(config, task_of(found))
    training, validation = open_splits(config, encoder, task_of(found))
    tuning = make_tuning(config, encoder, training)
    check_fit(tuning, training)
    description = describe(config, encoder, training, tuning)
    with claim(workdir):
        record = RunRecord(workdir, description)
        clear_unfinished(workdir)
        params = first_params(tuning, encoder, jax.random.key(config.seed))
        if not steps(workdir):
            record.add_start(describe_start(0) | {"settings": settings(description)})
            whole = replicate(params)
            made = [
                frozen.cached(
                    workdir / f"features-{name}.npz",
                    json.dumps(description["model"]["pretrained"] or config.seed),
                    tuning,
                    whole,
                    split,
                    config.batch_size,
                )
                for name, split in (("train", training), ("validation", validation))
            ]
            head = method(config, training, validation, *made)
            if head.votes is not None:
                description["model"]["votes"] = dataclasses.asdict(head.votes)
            params = {"encoder": params["encoder"], "head": head.params}
            save(config, workdir, description, params, head, encoder.seen if encoder else "")
            record.note_saved(config.probe.steps)
            told = {"chosen": head.scores, "tried": head.tried}
            write_whole(workdir / SCORES, (json.dumps(told, indent=2) + "\n").encode())
    files = {
        "checkpoint": steps(workdir)[-1],
        "scores": workdir / SCORES,
        "record of the run": workdir / RECORD,
    }
    state = TrainState(jnp.int32(config.probe.steps), params, (), jnp.zeros(2, jnp.uint32))
    name = f"{title(config, encoder)} on {training.patches.title}"
    return Outcome(name, state, files, finished=True)


def with_metric(config: ConfigDict, task: str) -> ConfigDict:
    """The configuration with the task's metric where none is named."""
    config = config.copy_and_resolve_references()
    if config.best_metric is None:
        config.best_metric = f"validation/{TASKS[task].best}"
    return config.lock()


def linear_probe(
    config: ConfigDict, training: Labelled, validation: Labelled, seen: Features, held: Features
) -> Head:
    """The linear layer whose learning rate is best on the validation split."""
    settings = dict(config.probe)
    fit = linear.fit(
        training.task,
        seen.features,
        seen.labels,
        len(training.classes),
        seed=config.seed,
        **{
            name: settings[name]
            for name in ("learning_rates", "steps", "batch_size", "weight_decay")
        },
    )
    names = [f"learning rate {rate:g}" for rate in config.probe.learning_rates]
    tried = {
        name: judged(validation, logits, held.labels)
        for name, logits in zip(names, fit.logits(held.features), strict=True)
    }
    best = max(
        range(len(names)), key=lambda one: tried[names[one]].get(config.best_metric, -np.inf)
    )
    params = {"kernel": fit.kernels[best], "bias": fit.biases[best]}
    return Head(params, tried[names[best]], tried, None)


def knn(
    config: ConfigDict, training: Labelled, validation: Labelled, seen: Features, held: Features
) -> Head:
    """The features of the training split, which vote by their likeness."""
    exclusive = TASKS[training.task].exclusive
    votes = Votes(len(training), config.probe.neighbours, config.probe.temperature, exclusive)
    labels = np.eye(len(training.classes))[seen.labels] if exclusive else seen.labels
    params = {
        "features": np.asarray(unit_length(jnp.asarray(seen.features))),
        "labels": labels.astype(np.float32),
    }
    logits = vote(votes, len(training.classes), params, held.features)
    found = judged(validation, logits, held.labels)
    return Head(params, found, {f"{votes.neighbours} neighbours": found}, votes)


METHODS: dict[str, Callable[..., Head]] = {"linear_probe": linear_probe, "knn": knn}
"""What can stand on a frozen encoder."""


def judged(split: Labelled, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The scores of logits for a split."""
    return scores(split.task, predictions(split, {"logits": logits, "labels": labels}, {}))


def save(
    config: ConfigDict,
    workdir: Path,
    description: dict[str, Any],
    params: dict[str, Any],
    head: Head,
    seen: str,
) -> None:
    """Writes the checkpoint.

    Raises:
      InputError: it cannot be written.
    """
    key = jax.random.key_data(jax.random.key(config.seed))
    state = replicate(TrainState(jnp.int32(config.probe.steps), params, (), key))
    metadata = {**description, "seen": seen, "versions": versions()}
    with Checkpoints(workdir, configuration.keep(config)) as checkpoints:
        checkpoints.save(config.probe.steps, state, metadata, head.scores)
