"""How long a step takes and how much fits: its arithmetic and memory against those of a device.

Exchanging gradients between devices is not counted, nor anything that the host does.
"""

import dataclasses
from typing import NamedTuple

from sar_mixmae_jax import flops
from sar_mixmae_jax.estimate.accelerators import Accelerator
from sar_mixmae_jax.estimate.memory import FLOAT32, DeviceStep, activations, device_memory

USABLE = 0.75
"""Share of a device's memory for a step: what JAX takes of a GPU by default."""

TRAFFIC = 10
"""Times that memory moves a kept activation.

XLA's `bytes accessed` of a compiled step on CPU, float32, is 10 (`tiny`) to 13 times (`base`) what
`memory.activations` counts.
"""

PASSES_A_SHARE, PASSES_AN_UPDATE = 3, 7
"""Of the parameters: read twice, gradient written; gradient, parameters, moments in and out."""

FORWARD_AGAIN = 4 / 3
"""Of the traffic with remat: a step is three forward passes, and one more."""

ITEMSIZES = {"float32": 4, "bfloat16": 2}


class Times(NamedTuple):
    """Seconds of a step.

    Attributes:
      products: matrix products at the share of the peak that is reached.
      traffic: memory traffic at full bandwidth; None where the bandwidth is not known.
    """

    products: float
    traffic: float | None

    @property
    def seconds(self) -> float:
        """The longer of the two: each hides behind the other at best."""
        return max(self.products, self.traffic or 0.0)


def step_times(device: Accelerator, step: DeviceStep, dtype: str) -> Times | None:
    """How long a device takes; None where its peak in `dtype` is not known.

    Args:
      device: what it can do.
      step: what it does.
      dtype: of the computation, of `ITEMSIZES`.
    """
    peak = device.peak(dtype)
    if peak is None:
        return None
    count = flops.train_step(step.size, step.images, remat=step.remat)
    moved = traffic(step, ITEMSIZES[dtype])
    return Times(
        count / (peak * device.utilisation), moved / device.bandwidth if device.bandwidth else None
    )


def traffic(step: DeviceStep, itemsize: int) -> float:
    """Bytes that memory moves in a step: activations and parameters, several times each."""
    kept = activations(step.size, itemsize).kept
    again = FORWARD_AGAIN if step.remat else 1.0
    passes = PASSES_A_SHARE * step.accumulate + PASSES_AN_UPDATE
    return TRAFFIC * again * step.images * kept + passes * FLOAT32 * step.parameters


def most_images(device: Accelerator, step: DeviceStep, dtype: str) -> int | None:
    """The most images for one device of which every share is even; None: memory not known."""
    if device.memory is None:
        return None
    fewest = 2 * step.accumulate

    def needed(images: int) -> int:
        changed = dataclasses.replace(step, images=images)
        return sum(device_memory(changed, ITEMSIZES[dtype]).values())

    fixed = needed(0)
    room = max(0.0, USABLE * device.memory - fixed)
    return int(room // (needed(fewest) - fixed)) * fewest
