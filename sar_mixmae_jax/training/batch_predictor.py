"""A function of records over a whole split: exact on any number of devices and processes.

Records are read in their order; the last batch is filled up with its last record, and what that
made is cut off again. So nothing is counted twice or left out, whatever the sizes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from sar_mixmae_jax.data.patch_dataset import Source, batches
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.training.distributed import is_primary_process, process_shard
from sar_mixmae_jax.training.progress import progress_bar
from sar_mixmae_jax.training.sharding import AXIS, fetch_replicated, mesh, prefetch_to_device
from sar_mixmae_jax.training.train_step import REPLICATED, Batch

RecordFunction = Callable[[Any, Batch], dict[str, jax.Array]]
"""(params, (batch, …) fields) -> (batch, …) arrays by name."""


class BatchPredictor:
    """A function on all devices, compiled once for every shape of batches."""

    def __init__(self, function: RecordFunction, batch_size: int) -> None:
        """Takes the function.

        Args:
          function: of the parameters and the fields of a batch.
          batch_size: records at a time, of all devices; made a multiple of their number.
        """
        self.batch_size = batch_size
        self._mapped = map_over_devices(function)

    def __call__(
        self, params: Any, source: Source, description: str | None = None
    ) -> dict[str, np.ndarray]:
        """The results for all records, in their order; every process has all of them.

        Args:
          params: on all devices.
          source: the records.
          description: beside a progress bar; None shows none.
        """
        devices = jax.device_count()
        rows = -(-min(self.batch_size, len(source)) // devices) * devices
        order = SequentialSampler(len(source), rows)
        read = prefetch_to_device(batches(source, order, 0, order.steps, process_shard()))
        shown = description is not None and is_primary_process()
        bar = progress_bar(0, order.steps, shown=shown, description=description or "")
        parts: list[dict[str, np.ndarray]] = []
        waiting: dict[str, jax.Array] | None = None
        with bar:
            for _, batch in read:  # what a batch made is fetched while the next is computed
                made = self._mapped(params, batch)
                if waiting is not None:
                    parts.append(jax.device_get(fetch_replicated(waiting)))
                waiting = made
                bar.update()
        if waiting is not None:
            parts.append(jax.device_get(fetch_replicated(waiting)))
        names = parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])[: len(source)] for name in names
        }


@lru_cache(maxsize=REPLICATED)
def map_over_devices(function: RecordFunction) -> RecordFunction:
    """(params, (device, batch, …) fields) -> (device * batch, …) arrays, whole on every device."""

    def on_block(params: Any, batch: Batch) -> dict[str, jax.Array]:
        made = function(params, jax.tree.map(lambda field: field[0], batch))
        return jax.tree.map(lambda part: jax.lax.all_gather(part, AXIS, tiled=True), made)

    whole, by_device = PartitionSpec(), PartitionSpec(AXIS)
    return jax.jit(
        jax.shard_map(
            on_block,
            mesh=mesh(),
            in_specs=(whole, by_device),
            out_specs=whole,
            check_vma=False,  # gathered, it is the same everywhere
        )
    )
