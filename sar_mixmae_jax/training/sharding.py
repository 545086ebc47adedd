"""Placement of arrays: the state is replicated, a batch is split among all devices.

With several processes each holds the shards of its own devices.
"""

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "batch"
"""Name of the axis over all devices."""
PREFETCH = 2
"""Batches transferred to the devices ahead of their use."""


@cache
def mesh() -> Mesh:
    """Return all devices as a one-dimensional mesh, ordered by process."""
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices), (AXIS,))


def replicate(tree: Any) -> Any:
    """Copy host arrays to every device; all processes must pass equal ones."""
    return jax.device_put(tree, NamedSharding(mesh(), PartitionSpec()))


def fetch_replicated(tree: Any) -> Any:
    """Return the copy of replicated arrays on the first device of this process."""
    return jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)


def local_shard(shared: jax.Array) -> np.ndarray:
    """Return the shards of a (device, …) array on this process, (local device, …), in order."""
    shards = sorted(shared.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


class IndexedBatch(NamedTuple):
    """Batch of records that are on the devices, by their numbers.

    Attributes:
      rows: (device, per-device batch) int32.
      records: (records, values) fields of all records by name, whole on every device.
    """

    rows: jax.Array
    records: dict[str, jax.Array]


def replicate_records(columns: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    """Copy (records, …) fields to every device of this process, as (records, values).

    An axis of two bands would be padded to 128 on a TPU.
    """
    sharding = NamedSharding(mesh(), PartitionSpec())
    flat = {name: field.reshape(len(field), -1) for name, field in columns.items()}
    return {
        name: jax.make_array_from_single_device_arrays(
            field.shape, sharding, [jax.device_put(field, d) for d in jax.local_devices()]
        )
        for name, field in flat.items()
    }


def batch_sharding() -> NamedSharding:
    """Return the sharding of a (device, per-device batch, …) array."""
    return NamedSharding(mesh(), PartitionSpec(AXIS))


def shard_batch(batch: np.ndarray) -> jax.Array:
    """Return the global (device, per-device batch, …) array of all (process batch, …) arrays."""
    per_device = batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])
    return jax.make_array_from_process_local_data(batch_sharding(), per_device)


def global_batch_shape(record: dict[str, Any], batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
    """Return shapes, types and sharding of a global batch of records like `record`."""
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
    """Yield (ids of this process, other fields on the devices), transferred ahead of their use."""
    waiting: deque[tuple[np.ndarray, dict[str, jax.Array]]] = deque()
    for batch in batches:
        fields = {name: shard_batch(values) for name, values in batch.items() if name != "id"}
        waiting.append((batch["id"], fields))
        if len(waiting) > PREFETCH:
            yield waiting.popleft()
    yield from waiting
