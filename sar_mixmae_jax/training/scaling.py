"""Images per second of several devices, with a fixed batch and with a fixed share of it."""

import dataclasses

from ml_collections import ConfigDict

from sar_mixmae_jax.training.accelerators import Accelerator, count_hosts
from sar_mixmae_jax.training.cost import Results, chosen_accelerators, make_device_step, step_times
from sar_mixmae_jax.training.device_memory import DeviceStep

DEVICE_COUNTS = (1, 8, 64, 512)
"""Numbers of devices that a rate is estimated for."""
READ_IMAGES_PER_SECOND = 4000.0
"""Images/s that a host reads from disk without a cache: docs/results.md, two cores."""


def estimate_all_scaling(
    config: ConfigDict,
    *,
    devices: int = 1,
    side: int = 120,
    utilisation: float | None = None,
    reading_rate: float = READ_IMAGES_PER_SECOND,
) -> Results:
    """Estimate the rates of several numbers of devices of every accelerator.

    Args:
      config: as returned by `configs/pretrain.py`.
      devices: number of devices that share its batch.
      side: side of a stored patch in pixels.
      utilisation: see `cost.estimate`.
      reading_rate: images/s that a host reads.

    Returns:
      Results of `estimate_scaling` by name of the accelerator.
    """
    step = make_device_step(config, devices, side)
    return {
        name: estimate_scaling(device, step, config.dtype, devices, reading_rate)
        for name, device in chosen_accelerators(utilisation).items()
    }


def estimate_scaling(
    device: Accelerator, step: DeviceStep, dtype: str, devices: int, reading_rate: float
) -> dict[str, list[Results | None]]:
    """Estimate the rates of `DEVICE_COUNTS` devices of one kind.

    Args:
      device: kind of device.
      step: work of each device of the configuration.
      dtype: float32, bfloat16 or auto.
      devices: number of devices of the configuration.
      reading_rate: images/s that a host reads.

    Returns:
      "fixed batch": the batch of the configuration, "fixed share": its images on every device; a
      list by number of devices, with None where the batch cannot be split or a time is unknown.
    """
    dtype = device.resolve_dtype(dtype)
    batch, microbatches = devices * step.images, devices * step.grad_accum_steps

    def split(count: int) -> DeviceStep | None:
        """Return the work of one of `count` devices, in as many microbatches in all."""
        parts = max(1, microbatches // count)
        if batch % (2 * count * parts):
            return None
        return dataclasses.replace(step, images=batch // count, grad_accum_steps=parts)

    def rates(steps: list[DeviceStep | None]) -> list[Results | None]:
        return [
            estimate_rate(device, part, dtype, count, reading_rate) if part else None
            for count, part in zip(DEVICE_COUNTS, steps, strict=True)
        ]

    return {
        "fixed batch": rates([split(count) for count in DEVICE_COUNTS]),
        "fixed share": rates([step] * len(DEVICE_COUNTS)),
    }


def estimate_rate(
    device: Accelerator, step: DeviceStep, dtype: str, devices: int, reading_rate: float
) -> Results | None:
    """Estimate the rate of several devices, or return None if a time is unknown.

    Args:
      device: kind of device.
      step: work of each device.
      dtype: dtype of the computation.
      devices: number of devices.
      reading_rate: images/s that a host reads.

    Returns:
      "efficiency" is the rate over that of as many devices without exchange and waits for data;
      "limit" is products, memory, exchange or reader.
    """
    times = step_times(device, step, dtype, devices)
    if times is None or times.exchange is None:
        return None
    batch = devices * step.images
    computed = batch / times.seconds
    read = reading_rate * count_hosts(devices, device.interconnect)
    return {
        "devices": devices,
        "batch_size": batch,
        "exchange_seconds": times.exchange,
        "step_seconds": times.seconds,
        "images_per_second": min(computed, read),
        "efficiency": min(computed, read) / (batch / times._replace(exchange=0.0).seconds),
        "limit": times.limit if computed <= read else "reader",
    }
