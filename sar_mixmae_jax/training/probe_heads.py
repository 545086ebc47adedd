"""Heads on the features of a frozen encoder: linear layers at several learning rates, and k-NN."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.models.architecture import KNNConfig
from sar_mixmae_jax.models.knn import knn_predict, l2_normalise
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, make_predictions
from sar_mixmae_jax.training.checkpoint import best_metric_value
from sar_mixmae_jax.training.feature_cache import FeatureCache


class FittedHead(NamedTuple):
    """A head that was fitted to the features of a frozen encoder.

    Attributes:
      params: parameters of the head.
      scores: metrics on the validation split, by name.
      tried: metrics of every candidate, by the name of the candidate.
    """

    params: dict[str, np.ndarray]
    scores: dict[str, float]
    tried: dict[str, dict[str, float]]


def fit_linear(
    config: ConfigDict,
    training: TaskDataset,
    validation: TaskDataset,
    train_features: FeatureCache,
    validation_features: FeatureCache,
) -> FittedHead:
    """Return the linear layer of the learning rate that is best on the validation split."""
    layers = fit_linear_layers(
        training.task,
        train_features.features,
        train_features.labels,
        len(training.classes),
        learning_rates=config.probe.learning_rates,
        steps=config.probe.steps,
        batch_size=config.probe.batch_size,
        weight_decay=config.probe.weight_decay,
        seed=config.seed,
    )
    names = [f"learning rate {rate:g}" for rate in config.probe.learning_rates]
    tried = {
        name: validation_metrics(validation, logits, validation_features.labels)
        for name, logits in zip(names, layers.logits(validation_features.features), strict=True)
    }
    values = np.array([best_metric_value(tried[name], config.best_metric) for name in names])
    if np.isnan(values).all():
        logging.warning(
            "%s is undefined on the validation split: the rate is chosen by the loss",
            config.best_metric,
        )
        values = np.array([best_metric_value(tried[name], "validation/loss") for name in names])
    best = int(np.nanargmax(values))
    params = {"kernel": layers.kernels[best], "bias": layers.biases[best]}
    return FittedHead(params, tried[names[best]], tried)


def fit_neighbours(
    config: ConfigDict,
    training: TaskDataset,
    validation: TaskDataset,
    train_features: FeatureCache,
    validation_features: FeatureCache,
) -> FittedHead:
    """Return the features and labels of the training split, which a `KNNHead` compares with."""
    knn = make_knn_config(config, training)
    labels = (
        np.eye(len(training.classes))[train_features.labels]
        if knn.exclusive
        else train_features.labels
    )
    params = {
        "features": np.asarray(l2_normalise(jnp.asarray(train_features.features))),
        "labels": labels.astype(np.float32),
    }
    logits = knn_predict(knn, params, validation_features.features)
    metrics = validation_metrics(validation, logits, validation_features.labels)
    return FittedHead(params, metrics, {f"{knn.neighbours} neighbours": metrics})


def make_knn_config(config: ConfigDict, training: TaskDataset) -> KNNConfig:
    """Return the settings of the nearest-neighbour head over the training split."""
    exclusive = training.task.exclusive
    return KNNConfig(len(training), config.probe.neighbours, config.probe.temperature, exclusive)


def validation_metrics(
    split: TaskDataset, logits: np.ndarray, labels: np.ndarray
) -> dict[str, float]:
    """Return the metrics and the loss of logits for a split, by the names in the log."""
    predictions = make_predictions(split, {"logits": logits, "labels": labels}, {})
    return split.task.validation_scalars(predictions, split.task.metrics(predictions))


class LinearFits(NamedTuple):
    """Linear layers, one for each learning rate.

    Attributes:
      kernels: (rates, width, classes).
      biases: (rates, classes).
    """

    kernels: np.ndarray
    biases: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """Return the logits (rates, records, classes) of features (records, width)."""
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
    """Train linear layers with AdamW on standardised features; the rate decays to 0 as a cosine.

    Args:
      task: for its loss.
      features: (records, width).
      labels: (records, …) of the task.
      classes: number of logits.
      learning_rates: trained side by side, on the same batches.
      steps: training steps.
      batch_size: records of a step, drawn with replacement.
      weight_decay: weight decay of the kernels, times the learning rate.
      seed: of the batches.
    """
    mean, std = features.mean(0), features.std(0)
    std = np.where(std > 1e-6, std, 1.0)
    train = _mapped_over_rates(task, classes, steps, min(batch_size, len(features)), weight_decay)
    rates = jnp.asarray(learning_rates, jnp.float32)
    kernels, biases = train(rates, (features - mean) / std, labels, jax.random.key(seed))
    kernels = np.asarray(kernels) / std[:, None]
    return LinearFits(kernels, np.asarray(biases) - np.einsum("w,rwc->rc", mean, kernels))


@lru_cache(maxsize=16)
def _mapped_over_rates(
    task: Task, classes: int, steps: int, batch_size: int, weight_decay: float
) -> Any:
    """Return `_train` for an array of rates, compiled once for equal settings."""
    train = partial(
        _train,
        task=task,
        classes=classes,
        steps=steps,
        batch_size=batch_size,
        weight_decay=weight_decay,
    )
    return jax.jit(jax.vmap(train, in_axes=(0, None, None, None)))


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
    """Return the kernel (width, classes) and bias (classes,) trained at one learning rate."""
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
        scale = rate * 0.5 * (1 + jnp.cos(jnp.pi * number / steps))
        params = jax.tree.map(lambda value, update: value + scale * update, params, updates)
        return (params, state), None

    (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jnp.arange(steps))
    return params


class ProbeMethod(NamedTuple):
    """A method to evaluate a frozen encoder.

    Attributes:
      fit: head from the configuration, training and validation split, and their features.
      votes: settings of a nearest-neighbour head; None for a linear one.
    """

    fit: Callable[..., FittedHead]
    votes: Callable[[ConfigDict, TaskDataset], KNNConfig | None]


METHODS = {
    "linear_probe": ProbeMethod(fit_linear, lambda config, training: None),
    "knn": ProbeMethod(fit_neighbours, make_knn_config),
}
"""Methods by `config.task`."""
