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

from sar_mixmae_jax.masking import random_mask
from sar_mixmae_jax.mixmae import MixMAE
from sar_mixmae_jax.objective import Objective, reconstruct
from sar_mixmae_jax.preprocess import preprocess

AXIS = "batch"


@flax.struct.dataclass
class TrainState:
    """All that changes during training, the same on every device.

    Attributes:
      step: number of steps done, int32.
      params: {"encoder": …, "decoder": …}, float32.
      opt_state: of the optimizer.
      key: of all randomness; a step's own key is folded from it, the step and the device.
    """

    step: jax.Array
    params: Any
    opt_state: optax.OptState
    key: jax.Array


TrainStep = Callable[[TrainState, Any], tuple[TrainState, dict[str, jax.Array], jax.Array]]
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
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), key)


def train_step(
    state: TrainState,
    backscatter: jax.Array,
    objective: Objective,
    optimizer: optax.GradientTransformation,
) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
    """One step on one device, inside a map over the axis `AXIS`.

    Args:
      state: before the step.
      backscatter: (per-device batch, height, width, band) dB, nodata not finite.
      objective: what to compute.
      optimizer: what to do with the gradient.

    Returns:
      The new state and {"loss", "gradient_norm"}, both equal on all devices, and the weighted
      error of each patch of this device, (per-device batch,).
    """
    key = jax.random.fold_in(jax.random.fold_in(state.key, state.step), jax.lax.axis_index(AXIS))
    flip_key, mask_key = jax.random.split(key)
    batch = preprocess(backscatter, flip_key, objective.preprocessing)
    mask = random_mask(mask_key, objective.model.size.grid, objective.mask_ratio)
    # A device's share of the mean over the valid pixels of all devices.
    count = jnp.maximum(jax.lax.pmean(batch.valid.sum().astype(jnp.float32), AXIS), 1.0)

    def loss(params: Any) -> tuple[jax.Array, jax.Array]:
        model, norm_pix = objective.model, objective.norm_pix
        error = reconstruct(model, params, batch, mask, norm_pix=norm_pix).error.sum((1, 2))
        return error.sum() / count, error

    (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(state.params)
    value, gradient = jax.lax.pmean((value, gradient), AXIS)
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {"loss": value, "gradient_norm": optax.global_norm(gradient)}
    return TrainState(state.step + 1, params, opt_state, state.key), metrics, error


def map_over_devices(objective: Objective, optimizer: optax.GradientTransformation) -> TrainStep:
    """The train step on all local devices: (state, (device, batch, …)) -> as `train_step`.

    The state is not stacked: it goes in and comes out as one replicated tree, and its buffers are
    donated. Patch errors come back as (device, batch).
    """

    def step(
        state: TrainState, backscatter: jax.Array
    ) -> tuple[TrainState, dict[str, jax.Array], jax.Array]:
        return train_step(state, backscatter, objective, optimizer)

    return jax.pmap(
        step, axis_name=AXIS, in_axes=(None, 0), out_axes=(None, None, 0), donate_argnums=0
    )


def replicate(state: TrainState) -> TrainState:
    """Puts a state on every local device, so that the first step does not compile twice."""
    mesh = jax.sharding.Mesh(jax.local_devices(), AXIS)
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))
