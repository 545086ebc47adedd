"""The train step: gradient accumulation, mean over all devices, update; mapped over devices.

A loss is a sum and the count of what was summed, so that its mean over all devices is exact.
"""

import dataclasses
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec

from sar_mixmae_jax.training.sharding import AXIS, IndexedBatch, mesh


@flax.struct.dataclass
class TrainState:
    """State of a training run, the same on every device.

    Attributes:
      step: number of steps done, int32.
      params: {"encoder": …, and "decoder" or "head": …}, float32.
      opt_state: state of the optimizer.
      key: (2,) uint32, data of the random key; the key of a microbatch is folded from it, the step
        and the number of the microbatch.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    key: jax.Array

    @property
    def random_key(self) -> jax.Array:
        """Key as JAX functions take it; only its data can be saved."""
        return jax.random.wrap_key_data(self.key)


CACHED_PROGRAMS = 4
"""Compiled programs kept for further runs in the same process."""

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
"""Fields of records by name, (device, batch, …) for all devices or (batch, …) for one."""
RecordShapes = tuple[tuple[str, tuple[int, ...]], ...]
"""Name and shape of every field of a record."""
LossFn = Callable[[Any, Batch, jax.Array], tuple[jax.Array, tuple[jax.Array, jax.Array]]]
"""(params, microbatch, key) -> summed loss, (count, (batch,) loss of each record)."""
TrainStep = Callable[[TrainState, Batch | IndexedBatch], tuple[TrainState, Metrics, jax.Array]]
"""(state, (device, batch, …) fields) -> new state, metrics, (device, batch) errors."""


@dataclasses.dataclass(frozen=True)
class CacheablePartial:
    """Hashable `functools.partial`: a function with its last argument bound.

    Instances with equal fields are equal: runs that differ only in their seed hit the
    same entry of the jit cache.

    Attributes:
      function: Function of a module.
      settings: Last argument of the function, hashable.
    """

    function: Callable[..., Any]
    settings: Any

    def __call__(self, *arguments: Any) -> Any:
        """Call the function with the arguments and the settings."""
        return self.function(*arguments, self.settings)


def init_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """Return the state before the first step.

    Args:
      init: initial parameters from a key.
      optimizer: optimizer of the parameters.
      key: random key of the run.
    """
    params_key, key = jax.random.split(key)
    params = init(params_key)
    return TrainState(
        jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(key)
    )


def train_step(
    state: TrainState,
    batch: Any,
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    grad_accum_steps: int = 1,
    gather: Callable[[Any], Batch] = lambda batch: batch,
) -> tuple[TrainState, Metrics, jax.Array]:
    """Take one step on one device, inside a map over the axis `AXIS`.

    The device's batch is cut into `grad_accum_steps` microbatches, computed in turn, each with its
    own key: n devices with m microbatches each compute what n m devices compute.

    Args:
      state: before the step.
      batch: (per-device batch, …) fields, or what `gather` finds them by.
      loss_fn: what is minimised.
      optimizer: optimizer of the parameters.
      grad_accum_steps: number of microbatches; more of them need less memory.
      gather: fields of a microbatch from a part of `batch`.

    Returns:
      The new state and {"loss", "gradient_norm"}, both equal on all devices, and the loss
      of each record of this device, (per-device batch,).
    """
    key = jax.random.fold_in(state.random_key, state.step)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)

    def add_microbatch(total: Any, item: tuple[jax.Array, Any]) -> tuple[Any, jax.Array]:
        index, microbatch = item
        number = jax.lax.axis_index(AXIS) * grad_accum_steps + index
        (loss, (count, error)), gradient = grad_fn(
            state.params, gather(microbatch), jax.random.fold_in(key, number)
        )
        return jax.tree.map(jnp.add, total, (loss, count, gradient)), error

    zeros = jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    if grad_accum_steps == 1:  # a loop takes longer to compile, and to trace
        total, errors = add_microbatch(zeros, (jnp.zeros((), jnp.int32), batch))
    else:
        microbatches = jax.tree.map(
            lambda field: field.reshape(grad_accum_steps, -1, *field.shape[1:]), batch
        )
        total, errors = jax.lax.scan(
            add_microbatch, zeros, (jnp.arange(grad_accum_steps), microbatches)
        )
    loss, count, gradient = jax.lax.psum(total, AXIS)
    count = jnp.maximum(count, 1.0)
    gradient = jax.tree.map(lambda leaf: leaf / count, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss / count, "gradient_norm": optax.global_norm(gradient)}
    return TrainState(state.step + 1, params, opt_state, state.key), metrics, errors.reshape(-1)


@lru_cache(maxsize=CACHED_PROGRAMS)
def map_over_devices(
    loss_fn: LossFn,
    optimizer: optax.GradientTransformation,
    grad_accum_steps: int = 1,
    record_shapes: RecordShapes | None = None,
) -> TrainStep:
    """Return the train step on all devices, cached for equal arguments.

    With `record_shapes` the step takes an `IndexedBatch` of records of these shapes.

    The state is one replicated tree, not stacked, and its buffers are donated. With several
    processes `pmap` returns arrays that cannot be saved; there the same step is mapped by
    `shard_map`, with bitwise equal results.
    """

    def step(state: TrainState, batch: Any) -> tuple[TrainState, Metrics, jax.Array]:
        settings = (loss_fn, optimizer, grad_accum_steps)
        if record_shapes is None:
            return train_step(state, batch, *settings)
        gather = partial(gather_records, records=batch.records, shapes=record_shapes)
        return train_step(state, batch.rows, *settings, gather)

    mapped = by_pmap if jax.process_count() == 1 else by_shard_map
    return mapped(step, indexed=record_shapes is not None)


def gather_records(rows: jax.Array, records: Batch, shapes: RecordShapes) -> Batch:
    """Return the (rows, …) fields of some records from (records, values) arrays."""
    fields = {
        name: jnp.take(records[name], rows, axis=0, mode="clip").reshape(-1, *shape)
        for name, shape in shapes
    }
    return jax.lax.optimization_barrier(fields)  # compiled as images from the host are: same bits


def by_pmap(step: Callable[..., Any], *, indexed: bool = False) -> TrainStep:
    """Map a per-device step over the devices of one process."""
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, IndexedBatch(0, None) if indexed else 0),  # type: ignore[arg-type]
        out_axes=(None, None, 0),
        devices=list(mesh().devices),
        donate_argnums=0,
    )


def by_shard_map(
    step: Callable[..., Any], *, indexed: bool = False, devices: Mesh | None = None
) -> Any:
    """Map a per-device step over the devices of all processes, or over others with the same axis.

    Args:
      step: on one device.
      indexed: whether it takes an `IndexedBatch`.
      devices: one-dimensional mesh with the axis `AXIS`; None: all devices.
    """

    def on_block(state: TrainState, batch: Any) -> tuple[TrainState, Metrics, jax.Array]:
        if indexed:
            batch = batch._replace(rows=batch.rows[0])
        else:
            batch = jax.tree.map(lambda field: field[0], batch)
        state, metrics, errors = step(state, batch)
        return state, metrics, errors[None]

    whole, by_device = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        on_block,
        mesh=devices or mesh(),
        in_specs=(whole, IndexedBatch(by_device, whole) if indexed else by_device),  # type: ignore[arg-type]
        out_specs=(whole, whole, by_device),
        check_vma=False,  # with it, the mean of the gradients would be wrong by the device count
    )
    return jax.jit(mapped, donate_argnums=0)


CompilerOptions = tuple[tuple[str, bool | int | str], ...]
"""Options of XLA for a program, by name."""


def compile_train_step(
    step: Any, state: TrainState, batch: Any, options: CompilerOptions = ()
) -> TrainStep:
    """Compile the mapped step ahead of time; the program refuses other shapes.

    Cached: equal arguments return the same program.

    Args:
      step: see `map_over_devices`.
      state: a replicated state.
      batch: (device, per-device batch, …) fields of all devices, or their shapes, with sharding.
      options: options of the compiler.
    """
    leaves, tree = jax.tree.flatten((state, batch))
    shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves)
    return _compile_cached(step, tree, tuple(shapes), options)


@lru_cache(maxsize=CACHED_PROGRAMS)
def _compile_cached(
    step: Any, tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...], options: CompilerOptions
) -> TrainStep:
    lowered = step.lower(*jax.tree.unflatten(tree, leaves))
    return lowered.compile(compiler_options=dict(options))
