"""The train step: one function per device, mapped over devices in one place.

Per device, as in the published code: the partner of an image is its mirror in the device's batch,
and one mask serves that batch. Across devices the loss is the mean over all valid pixels.
"""

from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from sar_mixmae_jax.devices import AXIS, mesh
from sar_mixmae_jax.masking import random_mask
from sar_mixmae_jax.mixmae import MixMAE
from sar_mixmae_jax.objective import Objective, reconstruct
from sar_mixmae_jax.preprocess import preprocess


@flax.struct.dataclass
class TrainState:
    """All that changes during training, the same on every device.

    Attributes:
      step: number of steps done, int32.
      params: {"encoder": …, "decoder": …}, float32.
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


Metrics = dict[str, jax.Array]
TrainStep = Callable[[TrainState, jax.Array], tuple[TrainState, Metrics, jax.Array]]
"""(state, (device, batch, height, width, band) dB) -> state, metrics, (device, batch) errors."""


def init_state(
    model: MixMAE, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    """A state before the first step, with random parameters."""
    size = model.size
    images = jnp.zeros((2, size.image_size, size.image_size, size.bands))
    params_key, key = jax.random.split(key)
    init = jax.jit(lambda key: model.init(key, images, jnp.zeros((size.grid, size.grid)))["params"])
    params = init(params_key)
    return TrainState(
        jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.random.key_data(key)
    )


def train_step(
    state: TrainState,
    backscatter: jax.Array,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics, jax.Array]:
    """One step on one device, inside a map over the axis `AXIS`.

    The device's batch is cut into `accumulate` shares, computed one after the other, each with its
    own mask and partners: so n devices with m shares each compute what n m devices compute.

    Args:
      state: before the step.
      backscatter: (per-device batch, height, width, band) dB, nodata not finite.
      objective: what to compute.
      optimizer: what to do with the gradient.
      accumulate: shares of the batch; less memory with more.

    Returns:
      The new state and {"loss", "gradient_norm"}, both equal on all devices, and the weighted
      error of each patch of this device, (per-device batch,).
    """
    key = jax.random.fold_in(state.random_key, state.step)
    share_gradient = jax.value_and_grad(share_loss, has_aux=True)

    def add_share(total: Any, share: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        index, images = share
        share_key = jax.random.fold_in(key, jax.lax.axis_index(AXIS) * accumulate + index)
        (loss, (count, error)), gradient = share_gradient(
            state.params, images, share_key, objective
        )
        return jax.tree.map(jnp.add, total, (loss, count, gradient)), error

    shares = backscatter.reshape(accumulate, -1, *backscatter.shape[1:])
    nothing = jnp.zeros(()), jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
    total, errors = jax.lax.scan(add_share, nothing, (jnp.arange(accumulate), shares))
    loss, count, gradient = jax.lax.psum(total, AXIS)
    count = jnp.maximum(count, 1.0)
    gradient = jax.tree.map(lambda leaf: leaf / count, gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": loss / count, "gradient_norm": optax.global_norm(gradient)}
    return TrainState(state.step + 1, params, opt_state, state.key), metrics, errors.reshape(-1)


def share_loss(
    params: Any, backscatter: jax.Array, key: jax.Array, objective: Objective
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """The summed weighted error of a share, with its number of valid pixels and error by patch."""
    flip_key, mask_key = jax.random.split(key)
    batch = preprocess(backscatter, flip_key, objective.preprocessing)
    model, norm_pix = objective.model, objective.norm_pix
    mask = random_mask(mask_key, model.size.grid, objective.mask_ratio)
    error = reconstruct(model, params, batch, mask, norm_pix=norm_pix).error.sum((1, 2))
    return error.sum(), (batch.valid.sum().astype(jnp.float32), error)


def map_over_devices(
    objective: Objective, optimizer: optax.GradientTransformation, accumulate: int = 1
) -> TrainStep:
    """The train step on all devices: (state, (device, batch, …)) -> as `train_step`.

    The state is not stacked: it goes in and comes out as one replicated tree, and its buffers are
    donated. Patch errors come back as (device, batch). Over several processes `pmap` returns
    arrays that cannot be saved; there the same step is mapped by `shard_map`, with equal results.
    """

    def step(state: TrainState, backscatter: jax.Array) -> tuple[TrainState, Metrics, jax.Array]:
        return train_step(state, backscatter, objective, optimizer, accumulate)

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

    def on_block(
        state: TrainState, backscatter: jax.Array
    ) -> tuple[TrainState, Metrics, jax.Array]:
        state, metrics, errors = step(state, backscatter[0])
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


def compiled(step: Any, state: TrainState, batch: jax.ShapeDtypeStruct | jax.Array) -> TrainStep:
    """The mapped step, compiled ahead: it cannot compile again, and refuses other shapes.

    Args:
      step: as made by `map_over_devices`.
      state: a replicated state.
      batch: (device, per-device batch, …) of all devices, with its sharding.
    """
    return step.lower(state, batch).compile()
