"""A linear layer on frozen features, at several learning rates at once."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import load_patch_dataset
from sar_mixmae_jax.models.knn import KNNConfig, knn_predict, l2_normalise
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.registry import task_for_dataset
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    init_model_params,
    param_shapes,
    prepare_batch,
)
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, make_predictions
from sar_mixmae_jax.training import feature_cache
from sar_mixmae_jax.training.checkpoint import (
    CheckpointManager,
    best_metric_value,
    checkpoint_steps,
    remove_unfinished,
)
from sar_mixmae_jax.training.config import make_retention_policy
from sar_mixmae_jax.training.downstream import (
    complete_config,
    describe_run,
    load_splits,
    make_finetune_objective,
    run_title,
)
from sar_mixmae_jax.training.feature_cache import FeatureCache
from sar_mixmae_jax.training.initialisation import replace_encoder, resolve_encoder
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.setup import check_fit
from sar_mixmae_jax.training.sharding import replicate
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.trainer import RunResult
from sar_mixmae_jax.training.workdir import (
    RECORD,
    RunRecord,
    comparable_settings,
    describe_start,
    lock_workdir,
    versions,
)
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.errors import InputError, look_up
from sar_mixmae_jax.utils.files import atomic_write, report_write_errors
from sar_mixmae_jax.utils.typed_json import to_json


class LinearFits(NamedTuple):
    """Linear layers, one for every learning rate.

    Attributes:
      kernels: (rates, width, classes).
      biases: (rates, classes).
    """

    kernels: np.ndarray
    biases: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(records, width) -> (rates, records, classes)."""
        return features @ self.kernels + self.biases[:, None]


def fit_linear_layers(
    task: Task,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    learning_rates: tuple[float, ...],
    steps: int,
    batch_size: int,
    weight_decay: float,
    seed: int,
) -> LinearFits:
    """Trains with AdamW on standardised features, the rate falling to 0 in half a cosine.

    Args:
      task: for its loss.
      features: (records, width).
      labels: (records, …) of the task.
      classes: logits.
      learning_rates: trained side by side, on the same batches.
      steps: of each.
      batch_size: records of a step, drawn with replacement.
      weight_decay: of the kernel, per unit of the rate.
      seed: of the batches.
    """
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-6, std, 1.0)
    train = partial(
        _train,
        task=task,
        classes=classes,
        steps=steps,
        batch_size=min(batch_size, len(features)),
        weight_decay=weight_decay,
    )
    rates = jnp.asarray(learning_rates, jnp.float32)
    kernels, biases = jax.jit(jax.vmap(train, in_axes=(0, None, None, None)))(
        rates, (features - mean) / std, labels, jax.random.key(seed)
    )
    kernels = np.asarray(kernels) / std[:, None]
    return LinearFits(kernels, np.asarray(biases) - np.einsum("w,rwc->rc", mean, kernels))


def _train(
    rate: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    task: Task,
    classes: int,
    steps: int,
    batch_size: int,
    weight_decay: float,
) -> tuple[jax.Array, jax.Array]:
    """The kernel and bias that one rate leads to."""
    optimizer = optax.adamw(1.0, weight_decay=weight_decay, mask=(True, False))
    params = jnp.zeros((features.shape[1], classes)), jnp.zeros(classes)

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        logits = jnp.matmul(features[rows], params[0], precision="highest") + params[1]
        return task.loss(logits, labels[rows]).mean()

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        params, state = carry
        step_key = jax.random.fold_in(key, number)
        rows = jax.random.randint(step_key, (batch_size,), 0, len(features))
        updates, state = optimizer.update(jax.grad(loss)(params, rows), state, params)
        now = rate * 0.5 * (1 + jnp.cos(jnp.pi * number / steps))
        params = jax.tree.map(lambda value, update: value + now * update, params, updates)
        return (params, state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


SCORES = "probe.json"
"""In the workdir: what was tried, and its scores on the validation split."""


class FittedHead(NamedTuple):
    """What stands on the frozen encoder.

    Attributes:
      params: of the head.
      scores: on the validation split.
      tried: scores of everything that was tried, by name.
    """

    params: dict[str, np.ndarray]
    scores: dict[str, float]
    tried: dict[str, dict[str, float]]


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
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
    encoder = resolve_encoder(config, workdir)
    bands = encoder.bands if encoder else config.bands
    found = load_patch_dataset(
        config.dataset, config.data_dir, config.train_split, bands, units=tuple(TO_DB)
    )
    task = task_for_dataset(found)
    config = complete_config(config, task)
    training, validation = load_splits(config, encoder, task)
    linear_tuning = make_finetune_objective(config, encoder, training)
    check_fit(partial(prepare_batch, objective=linear_tuning), training.patches.source)
    tuning = make_finetune_objective(config, encoder, training, method.votes(config, training))
    description = describe_run(config, encoder, training, tuning)
    with lock_workdir(workdir):
        record = RunRecord(workdir, description)
        remove_unfinished(workdir)
        if not checkpoint_steps(workdir):
            record.add_start(describe_start(0) | {"settings": comparable_settings(description)})
            params = init_model_params(linear_tuning, jax.random.key(config.seed))
            params = replace_encoder(params, linear_tuning.model.arch, encoder)
            pretrained = description.model.pretrained
            name = json.dumps(to_json(pretrained) if pretrained else config.seed)
            both = read_features(config, workdir, name, linear_tuning, params, training, validation)
            head = method.fit(config, training, validation, *both)
            write_scores(workdir / SCORES, head)
            params = {"encoder": params["encoder"], "head": head.params}
            packed = hashing.merge_packed_ids(encoder.seen if encoder else "", training.image_ids())
            save_probe(config, workdir, description, params, head, packed)
            record.note_saved(config.probe.steps)
        last = checkpoint_steps(workdir)[-1]
        params = read_subtree(last, {"params": param_shapes(tuning)})["params"]
    files = {"checkpoint": last, "scores": workdir / SCORES, "record of the run": workdir / RECORD}
    state = TrainState(jnp.int32(config.probe.steps), params, (), jnp.zeros(2, jnp.uint32))
    name = f"{run_title(config, encoder)} on {training.patches.title}"
    return RunResult(name, state, files, finished=True)


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


def write_scores(path: Path, head: FittedHead) -> None:
    """Writes what was tried, and its scores.

    Raises:
      InputError: it cannot be written.
    """
    told = {"chosen": head.scores, "tried": head.tried}
    with report_write_errors(path, "make room and start again; the features are kept"):
        atomic_write(path, (json.dumps(told, indent=2) + "\n").encode())


def read_features(
    config: ConfigDict,
    workdir: Path,
    encoder: str,
    tuning: FinetuneObjective,
    params: Any,
    *splits: TaskDataset,
) -> list[FeatureCache]:
    """The features of the training and the validation split, computed where they are not there."""
    whole = replicate({"encoder": params["encoder"]})
    at_once = config.batch_size or tuning.task.eval_batch_size
    return [
        feature_cache.load_or_compute_features(
            workdir / f"features-{name}.npz", encoder, tuning, whole, split, at_once
        )
        for name, split in zip(("train", "validation"), splits, strict=True)
    ]


def fit_linear(
    config: ConfigDict,
    training: TaskDataset,
    validation: TaskDataset,
    known: FeatureCache,
    held: FeatureCache,
) -> FittedHead:
    """The linear layer whose learning rate is best on the validation split."""
    fit = fit_linear_layers(
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
        name: validation_metrics(validation, logits, held.labels)
        for name, logits in zip(names, fit.logits(held.features), strict=True)
    }
    merits = np.array([best_metric_value(tried[name], config.best_metric) for name in names])
    if np.isnan(merits).all():
        logging.warning(
            "%s is undefined on the validation split: the rate is chosen by the loss",
            config.best_metric,
        )
        merits = np.array([best_metric_value(tried[name], "validation/loss") for name in names])
    best = int(np.nanargmax(merits))
    params = {"kernel": fit.kernels[best], "bias": fit.biases[best]}
    return FittedHead(params, tried[names[best]], tried)


def fit_neighbours(
    config: ConfigDict,
    training: TaskDataset,
    validation: TaskDataset,
    known: FeatureCache,
    held: FeatureCache,
) -> FittedHead:
    """The features of the training split, which vote by their likeness."""
    votes = knn_validation_logits(config, training)
    labels = np.eye(len(training.classes))[known.labels] if votes.exclusive else known.labels
    params = {
        "features": np.asarray(l2_normalise(jnp.asarray(known.features))),
        "labels": labels.astype(np.float32),
    }
    found = validation_metrics(validation, knn_predict(votes, params, held.features), held.labels)
    return FittedHead(params, found, {f"{votes.neighbours} neighbours": found})


def knn_validation_logits(config: ConfigDict, training: TaskDataset) -> KNNConfig:
    """How the records of the training split vote."""
    exclusive = training.task.exclusive
    return KNNConfig(len(training), config.probe.neighbours, config.probe.temperature, exclusive)


class ProbeMethod(NamedTuple):
    """A way to judge a frozen encoder.

    Attributes:
      fit: makes the head, of the configuration, the splits and their features.
      votes: how neighbours vote, if they do.
    """

    fit: Callable[..., FittedHead]
    votes: Callable[[ConfigDict, TaskDataset], KNNConfig | None]


METHODS = {
    "linear_probe": ProbeMethod(fit_linear, lambda config, training: None),
    "knn": ProbeMethod(fit_neighbours, knn_validation_logits),
}
"""What can stand on a frozen encoder."""


def validation_metrics(
    split: TaskDataset, logits: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """The scores of logits for a split, and their loss."""
    made = make_predictions(split, {"logits": logits, "labels": labels}, {})
    return split.task.validation_scalars(made, split.task.metrics(made))


def save_probe(
    config: ConfigDict,
    workdir: Path,
    description: RunDescription,
    params: dict[str, Any],
    head: FittedHead,
    packed: str,
) -> None:
    """Writes the checkpoint.

    Raises:
      InputError: it cannot be written.
    """
    key = jax.random.key_data(jax.random.key(config.seed))
    state = replicate(TrainState(jnp.int32(config.probe.steps), params, (), key))
    metadata = {**description.to_json(), "seen": packed, "versions": versions()}
    with CheckpointManager(workdir, make_retention_policy(config)) as checkpoints:
        checkpoints.save(config.probe.steps, state, metadata, head.scores)
