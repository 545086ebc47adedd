"""Loss of pixels and counts of pixels of a segmentation, on the device."""

import jax
import jax.numpy as jnp
import optax

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.tasks.base import mean_per_record
from sar_mixmae_jax.tasks.segmentation_metrics import BINS
from sar_mixmae_jax.utils.plotting import NO_CLASS


def pixel_loss(logits: jax.Array, labels: jax.Array, dice: float, focal: float) -> jax.Array:
    """Return the mean cross-entropy of the labelled pixels of each record, (batch,).

    Args:
      logits: (batch, …, classes).
      labels: (batch, …) int, `NOT_LABELLED` where not labelled.
      dice: weight of the Dice loss of the record, which is added.
      focal: exponent of the focal weight (1 - p)^focal of a pixel; 0: all weigh the same.
    """
    labelled = labels != NOT_LABELLED
    truth = jax.nn.one_hot(labels, logits.shape[-1])  # of an ignored pixel: zeros
    losses = optax.softmax_cross_entropy(logits, truth)
    if focal:
        losses = losses * (1 - jnp.exp(-losses)) ** focal
    total = mean_per_record(losses, labelled)
    if not dice:
        return total
    axes = tuple(range(1, labels.ndim))
    probability = jax.nn.softmax(logits) * labelled[..., None]
    both = (probability * truth).sum(axes)
    overlap = (2 * both + 1) / (probability.sum(axes) + truth.sum(axes) + 1)
    return total + dice * (1 - overlap.mean(-1)) * labelled.any(axes)


def count_pixels(logits: jax.Array, labels: jax.Array, valid: jax.Array) -> dict[str, jax.Array]:
    """Return counts of the pixels of each record, and both maps.

    Args:
      logits: (batch, height, width, classes).
      labels: (batch, height, width) int, `NOT_LABELLED` where not labelled.
      valid: (batch, height, width) bool, True where measured.

    Returns:
      "confusion" (batch, classes, classes): labelled and measured pixels by truth and prediction;
      "unmeasured" (batch, classes): labelled pixels without a measurement; "labels" (batch,
      classes), 1 where a labelled pixel has a class; "curve" (batch, 2, bins), with two classes:
      labelled pixels by truth and probability of the second class, where unmeasured ones have
      probability 0; "predicted" (batch, height, width) uint8, `NO_CLASS` where nothing was
      measured; "truth", int8.
    """
    classes = logits.shape[-1]
    labelled, predicted = labels >= 0, logits.argmax(-1)
    counts = _count(labels * classes + predicted, labelled & valid, classes**2)
    confusion = counts.reshape(-1, classes, classes)
    unmeasured = _count(labels, labelled & ~valid, classes)
    outputs = {
        "confusion": confusion,
        "unmeasured": unmeasured,
        "labels": (confusion.sum(2) + unmeasured > 0).astype(jnp.uint8),
        "predicted": jnp.where(valid, predicted, NO_CLASS).astype(jnp.uint8),
        "truth": labels.astype(jnp.int8),
    }
    if classes == 2:
        probability = jnp.where(valid, jax.nn.softmax(logits)[..., 1], 0.0)
        place = jnp.minimum(probability * BINS, BINS - 1).astype(jnp.int32)
        curve = _count(labels * BINS + place, labelled, 2 * BINS)
        outputs["curve"] = curve.reshape(-1, 2, BINS)
    return outputs


def _count(values: jax.Array, counted: jax.Array, number: int) -> jax.Array:
    """Return how often each of `number` values occurs in each record, (batch, number) int32."""
    flat = jnp.where(counted, values, number).reshape(len(values), -1)
    return jax.vmap(lambda row: jnp.zeros(number + 1, jnp.int32).at[row].add(1))(flat)[:, :number]
