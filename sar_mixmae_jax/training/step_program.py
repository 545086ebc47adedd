"""Pretraining step over any devices without a dataset, and its compilation for TPUs.

`libtpu`, from the extra `tpu`, compiles for a named topology. The program is that of several
processes: the step mapped by `shard_map` over the devices of the topology. Nothing is executed.
"""

import importlib.util
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.reconstruction import pretrain_loss
from sar_mixmae_jax.training.config import (
    check_batch,
    check_numbers,
    make_objective,
    make_optimizer,
    make_schedule,
)
from sar_mixmae_jax.training.sharding import AXIS
from sar_mixmae_jax.training.train_step import (
    CacheablePartial,
    TrainState,
    by_shard_map,
    init_state,
    train_step,
)
from sar_mixmae_jax.utils.errors import InputError, first_line

MEAN, STD = -15.0, 5.0
"""Statistics of the images, dB: constants of the program, made up."""
EXAMPLES = "v5e:2x2, v5p:2x2x1 or v6e:4x4"
ENVIRONMENT = {
    "TPU_SKIP_MDS_QUERY": "1",  # no question to the metadata server of a Google machine
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no chip is used, so none is locked
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",  # avoids a warning, whatever is compiled for
    "TPU_WORKER_HOSTNAMES": "localhost",  # likewise
}
"""Settings of libtpu, unless the environment has others."""
TOPOLOGY = re.compile(r"[\w ]+:(\d+(?:x\d+)*)(?:_twisted|_untwisted)?")
SIZE = re.compile(r"\b([\d.]+)([KMGT])\b")
"""Sizes in the messages of the compiler, in powers of 1024."""
SHAPE = re.compile(r"f32\[([\d,]*)\]")
ALL_REDUCE = re.compile(r"= (.*?) all-reduce(?:-start)?\(")


class PretrainStep(NamedTuple):
    """A step over several devices, not compiled, and its arguments.

    Attributes:
      step: jitted function of a state and a batch, see `TrainStep`.
      init: state before the first step, on the default device.
      state: shapes, types and sharding of the state.
      batch: shapes, types and sharding of the batch, (device, per-device batch, …).
    """

    step: Any
    init: Callable[[], TrainState]
    state: Any
    batch: dict[str, jax.ShapeDtypeStruct]


def make_step(config: ConfigDict, devices: Sequence[Any], records: int, side: int) -> PretrainStep:
    """Return the step of a pretraining configuration over devices, which need not exist.

    Args:
      config: as returned by `configs/pretrain.py`.
      devices: that share the batch.
      records: patches in an epoch, which the schedule depends on.
      side: side of a stored patch in pixels.

    Raises:
      InputError: the configuration cannot be used.
    """
    check_numbers(config)
    check_batch(config, len(devices))
    bands = tuple(config.bands)
    statistics = Statistics((MEAN,) * len(bands), (STD,) * len(bands), "made up")
    dataset = PatchDataset([], "none", bands, "dB", statistics, size=side)
    objective = make_objective(config, dataset)
    sampler = ShuffleSampler(records, config.batch_size, config.seed)
    optimizer = make_optimizer(config, make_schedule(config, sampler))
    step = partial(
        train_step,
        loss_fn=CacheablePartial(pretrain_loss, objective),
        optimizer=optimizer,
        grad_accum_steps=config.grad_accum_steps,
    )

    def init() -> TrainState:
        key = jax.random.key(config.seed)
        return init_state(partial(init_params, objective.model), optimizer, key)

    mesh = Mesh(np.array(devices), (AXIS,))
    whole = NamedSharding(mesh, PartitionSpec())
    by_device = NamedSharding(mesh, PartitionSpec(AXIS))
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole),
        jax.eval_shape(init),
    )
    shape = (len(devices), config.batch_size // len(devices), side, side, len(bands))
    batch = {"backscatter": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=by_device)}
    return PretrainStep(by_shard_map(step, devices=mesh), init, state, batch)


class StepProgram(NamedTuple):
    """The step of a device, as compiled; sizes in bytes.

    Attributes:
      kind: kind of the devices, as JAX names it.
      devices: number of devices.
      chips: number of chips; some kinds have two devices on each.
      memory: what the program needs on a device, by purpose; None if it does not fit.
      required: all of it. If it does not fit, as the compiler reports it.
      available: memory of a device that the compiler leaves to a program; None if it fits, since
        the compiler reports it only otherwise.
      flops: FLOPs of a device and step, elementwise work included; None if it does not fit.
      traffic: bytes that the operations of a device and step read and write; None likewise.
      exchanged: bytes of the arrays that are summed over all devices; None likewise.
    """

    kind: str
    devices: int
    chips: int
    memory: dict[str, int] | None = None
    required: int = 0
    available: int | None = None
    flops: float | None = None
    traffic: float | None = None
    exchanged: int | None = None


def open_topology(topology: str) -> list[Any]:
    """Return the devices of a TPU topology, which can be compiled for and not run on.

    Raises:
      InputError: the topology is unknown to libtpu, or libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            "found no libtpu, which compiles for a TPU: install it with the extra tpu, "
            "pip install 'sar-mixmae-jax[tpu]'"
        )
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    form = TOPOLOGY.fullmatch(topology)
    if form is None:
        raise unknown_topology(topology, "not of this form")
    # libtpu expects hosts of 2x2 chips; a smaller slice is one smaller host.
    sizes = [int(size) for size in form[1].split("x")] + [1, 1]
    host = (min(sizes[0], 2), min(sizes[1], 2), 1)
    try:
        found = topologies.get_topology_desc(topology, platform="tpu", chips_per_host_bounds=host)
    except RuntimeError as error:
        reason = first_line(error).partition(": ")[2].removeprefix("INVALID_ARGUMENT: ")
        raise unknown_topology(topology, reason) from error
    return list(found.devices)


def unknown_topology(topology: str, reason: str) -> InputError:
    """Return an error for a topology that libtpu does not accept."""
    return InputError(
        f"unknown TPU topology {topology!r} ({reason}): expected KIND:SHAPE as libtpu names it, "
        f"such as {EXAMPLES}"
    )


def compile_step(
    config: ConfigDict, topology: str, records: int, *, side: int = 120
) -> StepProgram:
    """Compile the step of a pretraining configuration for a TPU topology.

    Args:
      config: as returned by `configs/pretrain.py`; "auto" is bfloat16.
      topology: KIND:SHAPE as libtpu names it, such as "v5e:2x2".
      records: patches in the dataset, which the schedule depends on.
      side: side of a stored patch in pixels.

    Raises:
      InputError: the configuration or the topology cannot be used, or the compiler refuses the
        program for another reason than its size.
    """
    devices = open_topology(topology)
    config = config.copy_and_resolve_references()
    config.dtype = compiled_dtype(config)
    step = make_step(config, devices, records, side)
    program = StepProgram(devices[0].device_kind, len(devices), count_chips(devices))
    lowered = step.step.lower(step.state, step.batch)
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        required, available = parse_sizes(error)
        return program._replace(required=required, available=available)
    stats, cost = compiled.memory_analysis(), compiled.cost_analysis()
    memory = {
        "state and batch": stats.argument_size_in_bytes,
        "results": stats.output_size_in_bytes - stats.alias_size_in_bytes,
        "temporaries": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    return program._replace(
        memory=memory,
        required=sum(memory.values()),
        flops=cost["flops"],
        traffic=cost["bytes accessed"],
        exchanged=all_reduced_bytes(compiled.as_text()),
    )


def compiled_dtype(config: ConfigDict) -> str:
    """Return the dtype of the computation on a TPU."""
    return "bfloat16" if config.dtype == "auto" else config.dtype


def count_chips(devices: Sequence[Any]) -> int:
    """Return the number of chips, by the places of the devices in the topology."""
    return len({tuple(device.coords) for device in devices})


def parse_sizes(error: Exception) -> tuple[int, int]:
    """Return (required, available) bytes of a program that does not fit, from the message.

    Raises:
      InputError: the message is about something else.
    """
    sizes = [
        int(float(number) * 1024 ** ("KMGT".index(unit) + 1))
        for number, unit in SIZE.findall(str(error))
    ]
    if "RESOURCE_EXHAUSTED" not in str(error) or len(sizes) < 2:
        raise InputError(f"the compiler refuses the step: {first_line(error)}") from error
    return sizes[0], sizes[1]


def all_reduced_bytes(program: str) -> int:
    """Return the bytes of the float32 arrays that all-reduces of a program sum.

    Args:
      program: optimised HLO as text.
    """
    shapes = (shape for result in ALL_REDUCE.findall(program) for shape in SHAPE.findall(result))
    return sum(4 * math.prod(int(size) for size in shape.split(",") if size) for shape in shapes)
