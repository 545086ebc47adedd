"""Evaluation of a function on all records of a split, on any number of devices and processes.

Records are read in order. The last batch is padded with the last record and its padding removed
from the results, so that no record is counted twice or left out.
"""

from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import jax
import numpy as np
from jax.sharding import PartitionSpec

from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.record_source import Source
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.training.distributed import is_primary_process, process_shard
from sar_mixmae_jax.training.metric_logger import progress_bar
from sar_mixmae_jax.training.sharding import AXIS, fetch_replicated, mesh, prefetch_to_device
from sar_mixmae_jax.training.train_step import CACHED_PROGRAMS, Batch

RecordFunction = Callable[[Any, Batch], dict[str, jax.Array]]
"""(params, (batch, …) fields) -> (batch, …) arrays by name."""


class BatchPredictor:
    """Function of records on all devices, compiled once for every batch shape."""

    def __init__(self, function: RecordFunction, batch_size: int) -> None:
        """Map the function over the devices.

        Args:
          function: function of the parameters and the fields of a batch.
          batch_size: records of all devices, rounded up to a multiple of their number.
        """
        self.batch_size = batch_size
        self._mapped = map_predictions(function)

    def __call__(
        self,
        params: Any,
        source: Source,
        description: str | None = None,
        leave_out: Collection[str] = (),
    ) -> dict[str, np.ndarray]:
        """Return the results for all records, in order, in every process.

        Args:
          params: on all devices.
          source: records.
          description: description of the progress bar; None: no bar.
          leave_out: names of results that are not fetched from the device.

        Returns:
          (records, …) arrays by name.
        """
        devices = jax.device_count()
        rows = -(-min(self.batch_size, len(source)) // devices) * devices
        sampler = SequentialSampler(len(source), rows)
        data = prefetch_to_device(batches(source, sampler, 0, sampler.steps, process_shard()))
        shown = description is not None and is_primary_process()
        bar = progress_bar(0, sampler.steps, shown=shown, description=description or "")
        parts: list[dict[str, np.ndarray]] = []
        previous: dict[str, jax.Array] | None = None
        with bar:
            for _, batch in data:  # results are fetched while the next batch is computed
                results = self._mapped(params, batch)
                results = {name: results[name] for name in results if name not in leave_out}
                if previous is not None:
                    parts.append(jax.device_get(fetch_replicated(previous)))
                previous = results
                bar.update()
        if previous is not None:
            parts.append(jax.device_get(fetch_replicated(previous)))
        names = parts[0]
        return {
            name: np.concatenate([part[name] for part in parts])[: len(source)] for name in names
        }


@lru_cache(maxsize=CACHED_PROGRAMS)
def map_predictions(function: RecordFunction) -> RecordFunction:
    """Map a function to (params, (device, batch, …) fields) -> replicated (device * batch, …)."""

    def on_block(params: Any, batch: Batch) -> dict[str, jax.Array]:
        results = function(params, jax.tree.map(lambda field: field[0], batch))
        return jax.tree.map(lambda part: jax.lax.all_gather(part, AXIS, tiled=True), results)

    whole, by_device = PartitionSpec(), PartitionSpec(AXIS)
    return jax.jit(
        jax.shard_map(
            on_block,
            mesh=mesh(),
            in_specs=(whole, by_device),
            out_specs=whole,
            check_vma=False,  # gathered results are the same everywhere
        )
    )
