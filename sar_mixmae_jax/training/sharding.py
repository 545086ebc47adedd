"""Where arrays live: the state whole on every device, a batch shared among them.

The same on one process and on several, each of which holds the part of its own devices.
"""

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
"""The name of the axis over all devices."""
PREFETCH = 2
"""Batches on the device before their turn."""


@cache
def mesh() -> Mesh:
    """All devices in one row, those of a process side by side."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def replicate(tree: Any) -> Any:
    """Puts arrays of the host whole on every device; all processes must give equal ones."""
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec()))


def fetch_replicated(tree: Any) -> Any:
    """This process's copy of replicated arrays, on its first device."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def local_shard(shared: jax.Array) -> np.ndarray:
    """(local device, …) the part of a (device, …) array that this process holds, in order."""
    shards = sorted(shared.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def batch_sharding() -> NamedSharding:
    """Of a (device, per-device batch, …) array."""
    return NamedSharding(mesh(), PartitionSpec(AXIS))


def shard_batch(batch: np.ndarray) -> jax.Array:
    """(process batch, …) of this process -> (device, per-device batch, …) of all."""
    per_device = batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])
    return jax.make_array_from_process_local_data(batch_sharding(), per_device)


def global_batch_shape(record: dict[str, Any], batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Shape, type and sharding of the batch of all devices, of a record that it will hold."""
    lead = (jax.device_count(), batch_size // jax.device_count())
    return {
        name: jax.ShapeDtypeStruct(
            (*lead, *np.shape(value)), value.dtype, sharding=batch_sharding()
        )
        for name, value in record.items()
        if name != "id"
    }


def prefetch_to_device(
    batches: Iterator[dict[str, np.ndarray]],
) -> Iterator[tuple[np.ndarray, dict[str, jax.Array]]]:
    """(ids of this process, other fields on the devices), transferred before they are asked for."""
    waiting: deque[tuple[np.ndarray, dict[str, jax.Array]]] = deque()
    for batch in batches:
        fields = {name: shard_batch(values) for name, values in batch.items() if name != "id"}
        waiting.append((batch["id"], fields))
        if len(waiting) > PREFETCH:
            yield waiting.popleft()
    yield from waiting
