"""Nearest-neighbour classification on features: weighted votes of the records of a memory.

The memory is stored as parameters of the head, so that a checkpoint holds all that a prediction
needs: 4 bytes x records x (width + classes), 1.1 GB for 270,000 records and the `base` encoder.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.models.architecture import KNNConfig

MIN_VOTE = 1e-4
"""Limit of a share of the votes from 0 and from 1, which keeps logits finite."""

BATCH_SIZE = 1024
"""Records compared with the memory at a time."""


class KNNHead(nn.Module):
    """Head without training: the nearest records of the memory vote for their labels.

    Its parameters are the memory: `features`, (records, width) of length 1, and `labels`,
    (records, classes).

    Attributes:
      votes: settings.
      outputs: int, classes.
    """

    votes: KNNConfig
    outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Return (batch, outputs) logits of the shares of the votes, of (batch, width) features."""
        votes, zeros = self.votes, nn.initializers.zeros
        memory = self.param("features", zeros, (votes.records, features.shape[-1]))
        labels = self.param("labels", zeros, (votes.records, self.outputs))
        similarity = jnp.matmul(l2_normalise(features), memory.T, precision="highest")
        nearest, indices = jax.lax.top_k(similarity, min(votes.neighbours, votes.records))
        weights = nn.softmax(nearest / votes.temperature)  # batch, neighbours
        share = jnp.einsum("bn,bnc->bc", weights, labels[indices], precision="highest")
        share = jnp.clip(share, MIN_VOTE, 1 - MIN_VOTE)
        return jnp.log(share) if votes.exclusive else jnp.log(share) - jnp.log1p(-share)


def knn_predict(
    votes: KNNConfig, params: dict[str, np.ndarray], features: np.ndarray
) -> np.ndarray:
    """Return (records, classes) logits of (records, width) features.

    Args:
      votes: settings.
      params: memory, "features" and "labels"; see `KNNHead`.
      features: features of the records to classify.
    """
    head = KNNHead(votes, params["labels"].shape[1])
    apply = jax.jit(head.apply)
    starts = range(0, len(features), BATCH_SIZE)
    parts = [apply({"params": params}, features[start : start + BATCH_SIZE]) for start in starts]
    return np.concatenate([np.asarray(part) for part in parts])


def l2_normalise(features: jax.Array) -> jax.Array:
    """Return (batch, width) features scaled to length 1; a vector of zeros stays."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, 1e-12)
