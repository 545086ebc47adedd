"""What stands on the encoder: a classifier of an image, and one of the change between two dates.

Both make features first, (batch, width), and logits by one linear layer of them; so whatever is
done with the features of one (probing, neighbours, embedding) is done with those of the other.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class KNNConfig:
    """How neighbours vote.

    Attributes:
      records: in the memory.
      neighbours: that vote.
      temperature: of the weight of a vote by its cosine similarity.
      exclusive: whether a record has exactly one class.
    """

    records: int
    neighbours: int
    temperature: float
    exclusive: bool


class KNNHead(nn.Module):
    """A head without training: the nearest records of a memory vote for their labels.

    Its parameters are the memory: (records, width) features of length 1, (records, classes) labels.
    """

    votes: KNNConfig
    outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """(batch, width) -> (batch, outputs) logits of the share of the votes."""
        votes, nothing = self.votes, nn.initializers.zeros
        memory = self.param("features", nothing, (votes.records, features.shape[-1]))
        labels = self.param("labels", nothing, (votes.records, self.outputs))
        likeness = jnp.matmul(l2_normalise(features), memory.T, precision="highest")
        nearest, which = jax.lax.top_k(likeness, min(votes.neighbours, votes.records))
        weights = nn.softmax(nearest / votes.temperature)
        share = jnp.einsum("bn,bnc->bc", weights, labels[which], precision="highest")
        share = jnp.clip(share, MIN_VALID_FRACTION, 1 - MIN_VALID_FRACTION)
        return jnp.log(share) if votes.exclusive else jnp.log(share) - jnp.log1p(-share)


def knn_predict(
    votes: KNNConfig, params: dict[str, np.ndarray], features: np.ndarray
) -> np.ndarray:
    """(records, classes) logits of (records, width) features, by the memory in `params`."""
    head = KNNHead(votes, params["labels"].shape[1])
    apply = jax.jit(head.apply)
    parts = [
        features[first : first + TILES_PER_BATCH]
        for first in range(0, len(features), TILES_PER_BATCH)
    ]
    return np.concatenate([np.asarray(apply({"params": params}, part)) for part in parts])


def l2_normalise(features: jax.Array) -> jax.Array:
    """(batch, width) scaled to length 1; what is 0 stays 0."""
    length = jnp.linalg.norm(features, axis=-1, keepdims=True)
    return features / jnp.maximum(length, 1e-12)


MIN_VALID_FRACTION = 1e-4
"""Of the votes, so that logits are finite."""


TILES_PER_BATCH = 1024
"""Records that are compared with the whole memory."""
