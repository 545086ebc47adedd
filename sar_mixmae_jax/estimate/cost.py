"""Arithmetic, memory, time and what reading must deliver, from the configuration alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, flops
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.estimate.accelerators import ACCELERATORS, Accelerator
from sar_mixmae_jax.estimate.memory import DeviceStep, device_memory
from sar_mixmae_jax.estimate.roofline import ITEMSIZES, most_images, step_times
from sar_mixmae_jax.mixmae import MixMAE
from sar_mixmae_jax.order import Order

BIGEARTHNET_V2 = 237_871 + 122_342
"""Recommended patches of train and validation in the table of BigEarthNet v2.0 (reBEN)."""

Results = dict[str, Any]


def estimate(
    config: ConfigDict,
    records: int = BIGEARTHNET_V2,
    *,
    devices: int = 1,
    side: int = 120,
    utilisation: float | None = None,
) -> Results:
    """All estimates for a configuration.

    Args:
      config: as made by `configs/pretrain.py`.
      records: patches in the dataset.
      devices: that share the batch.
      side: of a stored patch in pixels.
      utilisation: share of the peak that products reach, instead of what is assumed.

    Returns:
      Plain numbers by name: FLOP, bytes, seconds. "memory" is by dtype and part, "accelerators" by
      name, with None for what is not known of one.

    Raises:
      InputError: the configuration cannot be used, or a batch is larger than the dataset.
    """
    configuration.check(config, devices)
    order = Order(records, config.batch_size, config.seed)
    model = configuration.model(config)
    step = device_step(config, model, devices, side)
    steps = config.max_steps or order.steps(config.epochs)
    step_flops = flops.train_step(model.size, config.batch_size, remat=config.remat)
    record = side**2 * model.size.bands
    results = {
        "variant": config.model.variant,
        "parameters": step.parameters,
        "records": records,
        "batch_size": config.batch_size,
        "devices": devices,
        "accumulate": step.accumulate,
        "remat": step.remat,
        "steps": steps,
        "encoder_flops": flops.encoder(model.size),
        "decoder_flops": flops.decoder(model.size),
        "step_flops": step_flops,
        "run_flops": steps * step_flops,
        "record_bytes": {"float32": 4 * record, "float16": 2 * record},
        "memory": {
            name: device_memory(step, itemsize)
            for name, itemsize in ITEMSIZES.items()
            if config.dtype in ("auto", name)
        },
    }
    table = ACCELERATORS
    if utilisation is not None:
        if not 0 < utilisation <= 1:
            raise InputError(f"--utilisation is {utilisation}: expected a share of 1")
        table = {
            name: dataclasses.replace(device, utilisation=utilisation, measured=False)
            for name, device in table.items()
        }
    results["accelerators"] = {
        name: expect(device, step, config.dtype, results) for name, device in table.items()
    }
    return results


def device_step(config: ConfigDict, model: MixMAE, devices: int, side: int) -> DeviceStep:
    """What each of `devices` does in a step."""
    parameters = count_parameters(model)
    return DeviceStep(
        model.size, parameters, config.batch_size // devices, side, config.remat, config.accumulate
    )


def count_parameters(model: MixMAE) -> int:
    """The number of parameters, from the shapes that initialisation would make."""
    size = model.size
    images = jax.ShapeDtypeStruct((2, size.image_size, size.image_size, size.bands), jnp.float32)
    mask = jax.ShapeDtypeStruct((size.grid, size.grid), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images, mask)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def expect(device: Accelerator, step: DeviceStep, dtype: str, results: Results) -> Results:
    """Time, rates and the largest batch on as many of a device as share the batch.

    Args:
      device: one of them.
      step: what it does.
      dtype: float32, bfloat16 or auto.
      results: of `estimate` so far.
    """
    dtype = device.resolve(dtype)
    times = step_times(device, step, dtype)
    images = most_images(device, step, dtype)
    rate = None if times is None else results["batch_size"] / times.seconds
    return {
        "source": device.source,
        "dtype": dtype,
        "peak_flops_per_second": device.peak(dtype),
        "utilisation": device.utilisation,
        "utilisation_measured": device.measured,
        "products_seconds": times and times.products,
        "traffic_seconds": times and times.traffic,
        "step_seconds": times and times.seconds,
        "images_per_second": rate,
        "run_seconds": times and results["steps"] * times.seconds,
        "reading_bytes_per_second": rate
        and {name: rate * size for name, size in results["record_bytes"].items()},
        "largest_batch": None if images is None else images * results["devices"],
    }
