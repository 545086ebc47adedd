"""The training loop: one step after the other, the device never waiting for the host.

What a step returns is looked at while the next one is computed; a loss that is not finite stops the
loop and names the patches.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from sar_mixmae_jax.devices import of_this_process
from sar_mixmae_jax.errors import DivergedError
from sar_mixmae_jax.step import TrainState, TrainStep
from sar_mixmae_jax.stopwatch import Stopwatch


class Done(NamedTuple):
    """A step that was dispatched; its arrays may still be in the making.

    Attributes:
      step: its number, from 1.
      state: after it, until the next step takes the buffers.
      ids: of this process's records in its batch, device by device.
      metrics: "loss" and "gradient_norm".
      errors: (device, batch) error of every record.
    """

    step: int
    state: TrainState
    ids: np.ndarray
    metrics: dict[str, jax.Array]
    errors: jax.Array


def run_steps(
    train_step: TrainStep,
    state: TrainState,
    data: Iterator[tuple[np.ndarray, dict[str, jax.Array]]],
    start: int,
    watch: Stopwatch,
) -> Iterator[Done]:
    """The steps after `start`, one a batch, each yielded as soon as it is dispatched.

    The step before is checked while the new one is computed, so that the device never waits; who
    keeps a state must check its own step first.

    Args:
      train_step: as made by `map_over_devices`.
      state: after `start` steps; its buffers are donated.
      data: delivers (ids, batch on the devices), as made by `devices.feed`.
      start: steps done.
      watch: measures the parts "data" and "compute".

    Raises:
      DivergedError: a loss or a gradient is not finite.
    """
    previous: Done | None = None
    step = start
    while True:
        with watch.part("data"):
            batch = next(data, None)
        if batch is None:
            return
        step += 1
        with watch.part("compute"):
            state, metrics, errors = train_step(state, batch[1])
            check_finite(previous)
        previous = Done(step, state, batch[0], metrics, errors)
        yield previous


def check_finite(done: Done | None) -> None:
    """Stops a run whose loss or gradient is not finite; every process does so at the same step.

    Raises:
      DivergedError: names the step and the patches of this process.
    """
    if done is None:
        return
    values = {name: float(value) for name, value in done.metrics.items()}
    if all(np.isfinite(value) for value in values.values()):
        return
    bad = ~np.isfinite(of_this_process(done.errors).ravel())
    names = [name.decode() for name in done.ids[bad]]
    if names:
        named = "patches of the batch with a non-finite error: " + ", ".join(names[:8])
        named += f" and {len(names) - 8} more" if len(names) > 8 else ""
    else:
        named = "no patch here has a non-finite error of its own"
    seen = ", ".join(f"{name} {value}" for name, value in values.items())
    raise DivergedError(
        f"step {done.step}: found {seen}, expected finite numbers; {named}: look at these patches, "
        "or lower --config.optimizer.base_learning_rate; nothing of this step is saved"
    )
