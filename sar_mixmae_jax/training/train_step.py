"""The train step, whatever is trained: one function per device, mapped over devices in one place.

A loss is a sum and the count of what was summed, so that its mean over all devices is exact.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from sar_mixmae_jax.training.sharding import AXIS, mesh


@flax.struct.dataclass
class TrainState:
    """All that changes during training, the same on every device.

    Attributes:
      step: number of steps done, int32.
      params: {"encoder": …, and "decoder" or "head": …}, float32.
      opt_state: of the optimizer.
      key: (2,) uint32, of all randomness; a step's own key is folded from it, the step and the
        device.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    key: jax.Array

    @property
    def random_key(self) -> jax.Array:
        """The key as JAX's functions take it; what is saved are its plain numbers."""
        return jax.random.wrap_key_data(self.key)


REPLICATED = 4
"""Programs that are kept for runs of the same process that differ in nothing but their seed."""

Metrics = dict[str, jax.Array]
Batch = dict[str, jax.Array]
"""What the fields of records become: one axis for the devices, one for a device's batch, …"""
LossFn = Callable[[Any, Batch, jax.Array], tuple[jax.Array, tuple[jax.Array, jax.Array]]]
"""(params, (batch, …) fields of a share, key) -> summed loss, (count, (batch,) loss of each)."""
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics, jax.Array]]
"""(state, (device, batch, …) fields) -> state, metrics, (device, batch) errors."""


def init_state(
    init: Callable[[jax.Array], Any], optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """A state before the first step.

    Args:
      init: makes the parameters of a key.
      optimizer: what to do with the gradient.
      key: of all randomness.
    """
    params_key, key = jax.random.split(key)
    params = init(params_key)
    return TrainState(
        jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(key)
    )


def train_step(
    state: TrainState,
    batch: Batch,
    share_loss: LossFn,
    optimizer: optax.GradientTransformation,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics, jax.Array]:
    """One step on one device, inside a map over the axis `AXIS`.

    The device's batch is cut into `grad_accum_steps` shares, computed in turn, each with its
    own key: so n devices with m shares each compute what n m devices compute.

    Args:
      state: before the step.
      batch: (per-device batch, …) fields.
      share_loss: what to compute.
      optimizer: what to do with the gradient.
      accumulate: shares of the batch; less memory with more.

    Returns:
      The new state and {"loss", "gradient_norm"}, both equal on all devices, and the error
      of each record of this device, (per-device batch,).
    """
    key = jax.random.fold_in(state.random_key, state.step)
    share_gradient = jax.value_and_grad(share_loss, has_aux=True)

    def add_share(total: Any, share: tuple[jax.Array, Batch]) -> tuple[Any, jax.Array]:
        index, records = share
        share_key = jax.random.fold_in(key, jax.lax.axis_index(AXIS) * accumulate + index)
        (loss, (count, error)), gradient = share_gradient(state.params, records, share_key)
        return jax.tree.map(jnp.add, total, (loss, count, gradient)), error

    shares = jax.tree.map(lambda field: field.reshape(accumulate, -1, *field.shape[1:]), batch)
    nothing = jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    total, errors = jax.lax.scan(add_share, nothing, (jnp.arange(accumulate), shares))
    loss, count, gradient = jax.lax.psum(total, AXIS)
    count = jnp.maximum(count, 1.0)
    gradient = jax.tree.map(lambda leaf: leaf / count, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss / count, "gradient_norm": optax.global_norm(gradient)}
    return TrainState(state.step + 1, params, opt_state, state.key), metrics, errors.reshape(-1)


@lru_cache(maxsize=REPLICATED)
def map_over_devices(
    share_loss: LossFn, optimizer: optax.GradientTransformation, accumulate: int = 1
) -> TrainStep:
    """The train step on all devices: (state, (device, batch, …)) -> as `train_step`.

    The state is not stacked: it goes in and comes out as one replicated tree, and its buffers are
    donated. Errors come back as (device, batch). Over several processes `pmap` returns
    arrays that cannot be saved; there the same step is mapped by `shard_map`, with equal results.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics, jax.Array]:
        return train_step(state, batch, share_loss, optimizer, accumulate)

    return by_pmap(step) if jax.process_count() == 1 else by_shard_map(step)


def by_pmap(step: Callable[..., Any]) -> TrainStep:
    """Maps a per-device step over the devices of one process."""
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=(None, None, 0),
        devices=list(mesh().devices),
        donate_argnums=0,
    )


def by_shard_map(step: Callable[..., Any]) -> TrainStep:
    """Maps a per-device step over the devices of all processes."""

    def on_block(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics, jax.Array]:
        state, metrics, errors = step(state, jax.tree.map(lambda field: field[0], batch))
        return state, metrics, errors[None]

    whole, by_device = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        on_block,
        mesh=mesh(),
        in_specs=(whole, by_device),
        out_specs=(whole, whole, by_device),
        check_vma=False,  # with it, the mean of the gradients would be wrong by the device count
    )
    return jax.jit(mapped, donate_argnums=0)


def compile_train_step(step: Any, state: TrainState, batch: Any) -> TrainStep:
    """The mapped step, compiled ahead: it cannot compile again, and refuses other shapes.

    Asked for the same again, it is the same program.

    Args:
      step: as made by `map_over_devices`.
      state: a replicated state.
      batch: (device, per-device batch, …) fields of all devices, or their shapes, with sharding.
    """
    leaves, tree = jax.tree.flatten((state, batch))
    shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for x in leaves)
    return _compile_cached(step, tree, tuple(shapes))


@lru_cache(maxsize=REPLICATED)
def _compile_cached(step: Any, tree: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]) -> TrainStep:
    return step.lower(*jax.tree.unflatten(tree, leaves)).compile()
