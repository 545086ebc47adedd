"""A linear layer on frozen features, at several learning rates at once."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sar_mixmae_jax.tasks import TASKS


class Fit(NamedTuple):
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


def fit(
    task: str,
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    *,
    learning_rates: tuple[float, ...],
    steps: int,
    batch_size: int,
    weight_decay: float,
    seed: int,
) -> Fit:
    """Trains with AdamW on standardised features, the rate falling to 0 in half a cosine.

    Args:
      task: an entry of `TASKS`, for its loss.
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
    return Fit(kernels, np.asarray(biases) - np.einsum("w,rwc->rc", mean, kernels))


def _train(
    rate: jax.Array,
    features: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    task: str,
    classes: int,
    steps: int,
    batch_size: int,
    weight_decay: float,
) -> tuple[jax.Array, jax.Array]:
    """The kernel and bias that one rate leads to."""
    loss_of = TASKS[task].loss
    optimizer = optax.adamw(1.0, weight_decay=weight_decay, mask=(True, False))
    params = jnp.zeros((features.shape[1], classes)), jnp.zeros(classes)

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        logits = jnp.matmul(features[rows], params[0], precision="highest") + params[1]
        return loss_of(logits, labels[rows]).mean()

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
