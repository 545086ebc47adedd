"""Set-up of a training run: all that it needs, built once from a configuration, and its records.

`pretrain.set_up` and `finetune.set_up` build it, from the dataset to the evaluator, and refuse what
cannot be built before anything is written; `trainer.run_training` trains it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import batches
from sar_mixmae_jax.data.record_cache import PackedSource, available_memory, pack, packed_size
from sar_mixmae_jax.data.record_source import RecordSource, Source, replace_records
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.layers import PLAIN, Kernels
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.training.checkpoint import RetentionPolicy
from sar_mixmae_jax.training.config import make_optimizer, make_read_options, make_schedule
from sar_mixmae_jax.training.distributed import (
    is_primary_process,
    lowest_of_processes,
    process_shard,
    processes_of_host,
    wait_for_processes,
)
from sar_mixmae_jax.training.optimizer import peak_learning_rate
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.sharding import (
    IndexedBatch,
    batch_sharding,
    global_batch_shape,
    prefetch_to_device,
    replicate_records,
    shard_batch,
)
from sar_mixmae_jax.training.train_step import (
    Batch,
    LossFn,
    RecordShapes,
    TrainState,
    init_state,
)
from sar_mixmae_jax.utils.errors import InputError, check_name
from sar_mixmae_jax.utils.files import check_local_path, format_bytes

MIN_PEAK_LEARNING_RATE = 2e-5
"""A short run with a lower peak learns nothing."""


class EvalResult(NamedTuple):
    """Result of an evaluation during training.

    Attributes:
      scalars: metrics by name.
      headline: the most important of them in words, for the title of the picture.
      draw: write the picture to a path under a title; None where there is none.
    """

    scalars: dict[str, float]
    headline: str
    draw: Callable[[Path, str], None] | None


class Evaluator(Protocol):
    """Evaluation of a model outside the train step.

    Attributes:
      picture: name of its picture in the workdir.
    """

    picture: str

    def evaluate(self, params: Any) -> EvalResult:
        """Evaluate replicated parameters; every process calls it."""
        ...

    def warn(self, scalars: dict[str, float]) -> None:
        """Warn of what the scalars before the first step show."""
        ...


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """Everything that a training run is made of.

    Attributes:
      config: configuration of the run, complete.
      title: model and dataset, for messages and figures.
      description: description of the run, stored with it.
      source: training records.
      sampler: order of the records.
      schedule: learning rate by step.
      optimizer: optimizer of the parameters, with this schedule.
      retention: which checkpoints are kept.
      init_params: parameters from a key.
      load_weights: put the weights of a source checkpoint into a state before the first step; not
        called in a run that is resumed.
      loss_fn: what is minimised, over a microbatch.
      evaluator: run every `eval_every` steps.
      eval_every: steps between evaluations; None: an epoch.
      eval_at_start: evaluate before the first step too.
      train_ids: hashes of the ids that the model is trained on, pretraining included; stored in
        every checkpoint.
      images_per_record: 2 where a record is a pair of dates.
      kernels: kernels of the model.
    """

    config: ConfigDict
    title: str
    description: RunDescription
    source: Source
    sampler: ShuffleSampler
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    retention: RetentionPolicy
    init_params: Callable[[jax.Array], Any]
    load_weights: Callable[[TrainState], TrainState]
    loss_fn: LossFn
    evaluator: Evaluator
    eval_every: int | None
    eval_at_start: bool
    train_ids: str
    images_per_record: int = 1
    kernels: Kernels = PLAIN

    def __post_init__(self) -> None:
        check_name((*CACHES, "auto"), self.config.data.cache, "data.cache")

    @property
    def total_steps(self) -> int:
        """Steps done at the end of the run."""
        return self.config.total_steps or self.sampler.steps(self.config.epochs)

    @property
    def num_microbatches(self) -> int:
        """Parts of a batch that have masks and partners of their own."""
        return jax.device_count() * self.config.grad_accum_steps

    def init_state(self) -> TrainState:
        """Return the state before the first step, with random parameters."""
        return init_state(self.init_params, self.optimizer, jax.random.key(self.config.seed))

    def with_sampler(self, sampler: ShuffleSampler) -> Self:
        """Return the same set-up for another order of the records, which the schedule follows."""
        if sampler == self.sampler:
            return self
        schedule = make_schedule(self.config, sampler)
        optimizer = make_optimizer(self.config, schedule)
        return dataclasses.replace(self, sampler=sampler, schedule=schedule, optimizer=optimizer)


def check_fit(prepare: Callable[[Batch, jax.Array], Any], source: Source) -> None:
    """Check that a record can be read and prepared for the model.

    Args:
      prepare: preprocessing of a batch, with a key.
      source: records.

    Raises:
      InputError: the record cannot be read, or its size does not fit.
    """
    batch = {
        name: jax.ShapeDtypeStruct((2, *np.shape(value)), value.dtype)
        for name, value in source[0].items()
        if name != "id"
    }
    jax.eval_shape(prepare, batch, jax.random.key(0))


def warn_of_shrinking(settings: Preprocessing, side: int) -> None:
    """Warn where images of `side` pixels are averaged in dB to half their size or less."""
    size = settings.image_size
    if settings.resize_mode == "resize" and side >= 2 * size and is_primary_process():
        logging.warning(
            f"images of {side} px are averaged in dB to {size} px, which darkens speckle and mixed "
            f"pixels: build the dataset with --size={size}, or set --config.model.image_size"
        )


def warn_of_low_learning_rate(config: ConfigDict) -> None:
    """Warn where the published base rate and a small batch give a rate too low to train with."""
    peak = peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size)
    if peak < MIN_PEAK_LEARNING_RATE and is_primary_process():
        logging.warning(
            f"the peak learning rate is {peak:.1e}: the published base rate of 1.5e-4 is for "
            f"batches of 256, and this batch is {config.batch_size}; raise "
            "--config.optimizer.base_learning_rate"
        )


def warn_of_zero_learning_rate(setup: RunSetup) -> None:
    """Warn where the schedule ends before the run does."""
    steps, sampler, config = setup.total_steps, setup.sampler, setup.config
    if is_primary_process() and steps > 1 and float(setup.schedule(steps - 1)) == 0:
        logging.warning(
            "the learning rate reaches 0 at epoch %g, the run has %g epochs: raise "
            "--config.schedule_epochs",
            config.schedule_epochs or sampler.progress(steps),
            sampler.progress(steps),
        )


# ---- records

CACHES = ("none", "host", "device")
"""Places of the records of a run, the slowest first."""
HOST_SHARE, DEVICE_SHARE = 0.5, 0.25
"""Parts of the available host memory, and of the memory of a device, that `auto` may take."""


class RecordFeed(NamedTuple):
    """Batches of a run as the train step takes them.

    Attributes:
      batches: (ids of this process, batch on the devices) of every step.
      batch_shapes: arrays of a batch, or their shapes, with sharding.
      record_shapes: shapes of the records that are on the devices; None: batches hold images.
    """

    batches: Iterator[tuple[np.ndarray, Any]]
    batch_shapes: Any
    record_shapes: RecordShapes | None = None


def open_feed(setup: RunSetup, start: int) -> RecordFeed:
    """Load the records into the cache that `config.data.cache` names, and return their batches.

    Args:
      setup: set-up of the run.
      start: steps done.

    Raises:
      InputError: a record cannot be read, or the records exceed the memory of host or device.
    """
    config, source, options = setup.config, setup.source, make_read_options(setup.config)
    cache = choose_cache(setup, start)
    if cache != "none":
        folder = None
        if config.data.cache_dir:
            folder = check_local_path("--config.data.cache_dir", config.data.cache_dir).expanduser()
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
      InputError: the choice is unknown, or the records exceed the memory of host or device.
    """
    wanted = setup.config.data.cache
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
        elif (
            on_device
            and isinstance(setup.source, RecordSource)
            and size <= DEVICE_SHARE * on_device
        ):
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
            f"data.cache is {wanted}: the records take {format_bytes(size)}, and "
            f"{format_bytes(on_host)} of host memory are available: set --config.data.cache=none, "
            "or with host --config.data.cache_dir to a folder"
        )
    if wanted == "device" and on_device and size > on_device:
        raise InputError(
            f"data.cache is device: the records take {format_bytes(size)} of a device of "
            f"{format_bytes(on_device)}: set --config.data.cache=host"
        )
    return wanted


def device_memory_limit() -> int | None:
    """Return the bytes of a device of this process that JAX may use; None if it does not say."""
    statistics = [device.memory_stats() or {} for device in jax.local_devices()]
    return min(memory.get("bytes_limit", 0) for memory in statistics) or None


def _share(size: int, share: float, memory: float, name: str) -> str:
    limit = format_bytes(memory) if np.isfinite(memory) else "an unknown amount of"
    return f"{format_bytes(size)}, at most {share:.0%} of {limit} {name} is taken"


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
