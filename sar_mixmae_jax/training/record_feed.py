"""Records on their way to the train step: read from disk, from host memory, or on the devices."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.record_cache import PackedSource, available_memory, pack, packed_size
from sar_mixmae_jax.data.record_source import RecordSource, Source, replace_records
from sar_mixmae_jax.training.config import make_read_options
from sar_mixmae_jax.training.distributed import (
    is_primary_process,
    lowest_of_processes,
    process_shard,
    processes_of_host,
    wait_for_processes,
)
from sar_mixmae_jax.training.setup import RunSetup
from sar_mixmae_jax.training.sharding import (
    IndexedBatch,
    batch_sharding,
    global_batch_shape,
    prefetch_to_device,
    replicate_records,
    shard_batch,
)
from sar_mixmae_jax.training.train_step import RecordShapes
from sar_mixmae_jax.utils.errors import InputError, check_name

CACHES = ("none", "host", "device")
"""Places of the records of a run, the slowest first."""
HOST_SHARE, DEVICE_SHARE = 0.5, 0.25
"""Parts of the available host memory, and of the memory of a device, that `auto` may take."""


class RecordFeed(NamedTuple):
    """Batches of a run as the train step takes them.

    Attributes:
      batches: (ids of this process, batch on the devices) of every step.
      batch_shapes: arrays of a batch, or their shapes, with sharding.
      record_shapes: of the records that are on the devices; None: batches hold images.
    """

    batches: Iterator[tuple[np.ndarray, Any]]
    batch_shapes: Any
    record_shapes: RecordShapes | None = None


def open_feed(setup: RunSetup, start: int) -> RecordFeed:
    """Bring the records to where `config.data.cache` wants them, and return their batches.

    Args:
      setup: of the run.
      start: steps done.

    Raises:
      InputError: a record cannot be read, or the records do not fit where they should.
    """
    config, source, options = setup.config, setup.source, make_read_options(setup.config)
    cache = choose_cache(setup, start)
    if cache != "none":
        folder = config.data.cache_dir and Path(config.data.cache_dir).expanduser()
        source = replace_records(source, lambda records: pack(records, options, folder))
        options = dataclasses.replace(options, workers=0)  # each would copy the records
        wait_for_processes()
    steps = start, setup.total_steps
    if cache == "device" and isinstance(source, PackedSource):
        return _device_feed(source, setup, *steps)
    data = batches(source, setup.sampler, *steps, process_shard(), options)
    return RecordFeed(prefetch_to_device(data), global_batch_shape(source[0], config.batch_size))


def _device_feed(source: PackedSource, setup: RunSetup, start: int, stop: int) -> RecordFeed:
    fields = {name: column for name, column in source.columns.items() if name != "id"}
    ids, records = source.columns["id"], replicate_records(fields)

    def numbers() -> Iterator[tuple[np.ndarray, IndexedBatch]]:
        for step in range(start, stop):
            rows = setup.sampler.batch(step, *process_shard())
            yield ids[rows], IndexedBatch(shard_batch(rows.astype(np.int32)), records)

    rows = jax.ShapeDtypeStruct(
        (jax.device_count(), setup.config.batch_size // jax.device_count()),
        np.int32,
        sharding=batch_sharding(),
    )
    shapes = tuple((name, column.shape[1:]) for name, column in fields.items())
    return RecordFeed(numbers(), IndexedBatch(rows, records), shapes)  # type: ignore[arg-type]


def choose_cache(setup: RunSetup, start: int) -> str:
    """Return where the records are kept, an entry of `CACHES`, the same in every process.

    `auto` is the fastest place that the records leave room in, but none in a run that reads fewer
    records than there are.

    Raises:
      InputError: the choice is unknown, or the records do not fit where they should.
    """
    wanted = setup.config.data.cache
    check_name((*CACHES, "auto"), wanted, "data.cache")
    if wanted == "none":
        return wanted
    base = _base_records(setup.source)
    size, on_host, on_device = packed_size(base), _host_memory(setup), device_memory_limit()
    if wanted == "auto":
        reads = (setup.total_steps - start) * setup.config.batch_size
        if reads < len(base):
            cache, reason = "none", f"{reads} of {len(base)} records are read"
        elif size > HOST_SHARE * on_host:
            cache, reason = "none", _share(size, HOST_SHARE, on_host, "available host memory")
        elif on_device and base is setup.source and size <= DEVICE_SHARE * on_device:
            cache, reason = "device", _share(size, DEVICE_SHARE, on_device, "device memory")
        else:
            cache, reason = "host", _share(size, HOST_SHARE, on_host, "available host memory")
        chosen = CACHES[lowest_of_processes(CACHES.index(cache))]
        if is_primary_process():
            print(f"records: data.cache=auto is {chosen}: {reason}")
        return chosen
    if wanted == "device" and not isinstance(setup.source, RecordSource):
        raise InputError(
            "data.cache is device, and the records are pairs or a subset: set "
            "--config.data.cache=host"
        )
    if size > on_host:
        raise InputError(
            f"data.cache is {wanted}: the records take {size / 1e9:.3g} GB, and {on_host / 1e9:.3g}"
            " GB of host memory are available: set --config.data.cache=none, or with host "
            "--config.data.cache_dir to a folder"
        )
    if wanted == "device" and on_device and size > on_device:
        raise InputError(
            f"data.cache is device: the records take {size / 1e9:.3g} GB of a device of "
            f"{on_device / 1e9:.3g} GB: set --config.data.cache=host"
        )
    return wanted


def device_memory_limit() -> int | None:
    """Return the bytes of a device of this process that JAX may use; None if it does not say."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return min(one.get("bytes_limit", 0) for one in statistics) or None


def _share(size: int, share: float, memory: float, name: str) -> str:
    return f"{size / 1e9:.3g} GB, at most {share:.0%} of {memory / 1e9:.3g} GB {name} are taken"


def _host_memory(setup: RunSetup) -> float:
    """Return the bytes of host memory for this process; files in a folder are shared."""
    available, processes = available_memory(), processes_of_host()
    if available is None:
        return np.inf
    return available if setup.config.data.cache_dir else available / processes


def _base_records(source: Source) -> Source:
    """Return the records that a source is made of."""
    found: list[Source] = []

    def note(records: Source) -> Source:
        found.append(records)
        return records

    replace_records(source, note)
    return found[0]
