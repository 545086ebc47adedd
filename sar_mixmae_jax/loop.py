"""The training loop: one step after the other, the device never waiting for the host.

What a step returns is looked at while the next one is computed; a loss that is not finite stops the
loop and names the patches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import grain
import jax
import numpy as np

from sar_mixmae_jax.errors import DivergedError
from sar_mixmae_jax.step import TrainState, TrainStep


class Done(NamedTuple):
    """A step that was dispatched; its arrays may still be in the making.

    Attributes:
      step: its number, from 1.
      state: after it, until the next step takes the buffers.
      ids: of the patches in its batch, device by device.
      metrics: "loss" and "gradient_norm".
      patch_errors: (device, batch) weighted error of every patch.
    """

    step: int
    state: TrainState
    ids: np.ndarray
    metrics: dict[str, jax.Array]
    patch_errors: jax.Array


def run_steps(
    train_step: TrainStep, state: TrainState, data: grain.DatasetIterator, start: int, stop: int
) -> Iterator[Done]:
    """The steps after `start` up to `stop`, each yielded as soon as it is dispatched.

    The step before is checked while the new one is computed, so that the device never waits; who
    keeps a state must check its own step first.

    Args:
      train_step: as made by `map_over_devices`.
      state: after `start` steps; its buffers are donated.
      data: delivers the batches.
      start: steps done.
      stop: steps to have done at the end.

    Raises:
      DivergedError: a loss or a gradient is not finite.
    """
    previous: Done | None = None
    for step in range(start + 1, stop + 1):
        batch = next(data)
        state, metrics, errors = train_step(state, per_device(batch["backscatter"]))
        check_finite(previous)
        previous = Done(step, state, batch["id"], metrics, errors)
        yield previous


def per_device(batch: np.ndarray) -> np.ndarray:
    """(process batch, …) -> (local device, per-device batch, …)."""
    return batch.reshape(jax.local_device_count(), -1, *batch.shape[1:])


def check_finite(done: Done | None) -> None:
    """Stops a run whose loss or gradient is not finite.

    Raises:
      DivergedError: names the step and the patches.
    """
    if done is None:
        return
    values = {name: float(value) for name, value in done.metrics.items()}
    if all(np.isfinite(value) for value in values.values()):
        return
    bad = ~np.isfinite(np.asarray(done.patch_errors).reshape(-1))
    ids = [name.decode() for name in (done.ids[bad] if bad.any() else done.ids)]
    named = ", ".join(ids[:8]) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
    seen = ", ".join(f"{name} {value}" for name, value in values.items())
    raise DivergedError(
        f"step {done.step}: found {seen}, expected finite numbers; patches of the batch with a "
        f"non-finite error: {named}: look at these patches, or lower "
        "--config.optimizer.base_learning_rate; nothing of this step is saved"
    )
