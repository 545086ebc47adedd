"""Time of a pretraining run by a roofline model, and its memory, for named accelerators.

A step takes the longer of its matrix products, at an assumed share of the peak, and of its memory
traffic, at full bandwidth; then the exchange of gradients. This is good for an order of magnitude
and for comparing settings.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.training.accelerators import (
    ACCELERATORS,
    Accelerator,
    count_hosts,
    exchange_seconds,
)
from sar_mixmae_jax.training.config import (
    KERNEL_FIELDS,
    check_batch,
    check_kernels,
    check_numbers,
    make_arch,
    remat_policy,
)
from sar_mixmae_jax.training.device_memory import (
    FLOAT32,
    ITEMSIZES,
    DeviceStep,
    activations,
    device_memory,
)
from sar_mixmae_jax.training.kernel_choice import find_drawback
from sar_mixmae_jax.utils.errors import InputError

BIGEARTHNET_V2 = 237_871 + 122_342
"""Recommended patches of train and validation in the metadata table of BigEarthNet v2.0."""
USABLE_MEMORY = 0.75
"""Fraction of a device's memory for a step: what JAX allocates on a GPU by default."""
TRAFFIC_PER_ACTIVATION = 10
"""Times that memory moves a kept activation.

XLA's `bytes accessed` of a compiled float32 step on CPU is 10 (`tiny`) to 13 times (`base`) the
bytes that `activations` counts.
"""
PASSES_PER_MICROBATCH, PASSES_PER_UPDATE = 3, 7
"""Passes over the parameters: read twice, gradient written; gradient, parameters, moments."""
REMAT_TRAFFIC = {"none": 1.0, "dots": 1.0, "full": 4 / 3}
"""Relative traffic by `remat`: with full, a step of three forward passes becomes one of four."""

Results = dict[str, Any]


class StepTimes(NamedTuple):
    """Seconds of a step.

    Attributes:
      products: matrix products at the utilisation of the accelerator.
      traffic: memory traffic at full bandwidth; None if the bandwidth is unknown.
      exchange: all-reduce of the gradients; None if the links are unknown.
    """

    products: float
    traffic: float | None
    exchange: float | None = 0.0

    @property
    def seconds(self) -> float:
        """Longer of products and traffic, which overlap, and then the exchange."""
        return max(self.products, self.traffic or 0.0) + (self.exchange or 0.0)

    @property
    def limit(self) -> str:
        """Name of the largest part: products, memory or exchange."""
        parts = {
            "products": self.products,
            "memory": self.traffic or 0.0,
            "exchange": self.exchange or 0.0,
        }
        return max(parts, key=parts.__getitem__)


def estimate(
    config: ConfigDict,
    records: int = BIGEARTHNET_V2,
    *,
    devices: int = 1,
    side: int = 120,
    utilisation: float | None = None,
) -> Results:
    """Estimate arithmetic, memory and time of a pretraining configuration.

    Args:
      config: as returned by `configs/pretrain.py`.
      records: patches in the dataset.
      devices: number of devices that share the batch.
      side: side of a stored patch in pixels.
      utilisation: fraction of the peak that products reach, instead of the tabulated ones.

    Returns:
      Numbers by name: FLOP, bytes, seconds. "memory" is by dtype and purpose, "accelerators" by
      name, with None for unknown numbers.

    Raises:
      InputError: the configuration cannot be used, or a batch is larger than the dataset.
    """
    check_numbers(config)
    check_batch(config, devices)
    step = make_device_step(config, devices, side)
    arch = step.arch
    sampler = ShuffleSampler(records, config.batch_size, config.seed)
    steps = config.total_steps or sampler.steps(config.epochs)
    step_flops = architecture.train_step_flops(arch, config.batch_size, remat=step.remat)
    values = side**2 * arch.bands
    results = {
        "variant": config.model.variant,
        "parameters": step.parameters,
        "records": records,
        "batch_size": config.batch_size,
        "devices": devices,
        "grad_accum_steps": step.grad_accum_steps,
        "remat": step.remat,
        "steps": steps,
        "encoder_flops": architecture.encoder_flops(arch),
        "decoder_flops": architecture.decoder_flops(arch),
        "step_flops": step_flops,
        "run_flops": steps * step_flops,
        "gradient_bytes": FLOAT32 * step.parameters,
        "record_bytes": {"float32": 4 * values, "float16": 2 * values},
        "memory": {
            name: device_memory(column, ITEMSIZES[dtype])
            for name, (column, dtype) in memory_columns(step, config.dtype).items()
        },
    }
    results["accelerators"] = {
        name: estimate_accelerator(device, step, config.dtype, results)
        for name, device in chosen_accelerators(utilisation).items()
    }
    return results


def chosen_accelerators(utilisation: float | None = None) -> dict[str, Accelerator]:
    """Return `ACCELERATORS`, with another utilisation if one is given.

    Raises:
      InputError: the utilisation is no share.
    """
    if utilisation is None:
        return ACCELERATORS
    if not 0 < utilisation <= 1:
        raise InputError(f"--utilisation is {utilisation}: expected a number above 0, up to 1")
    return {
        name: dataclasses.replace(device, utilisation=utilisation, measured=False)
        for name, device in ACCELERATORS.items()
    }


def make_device_step(config: ConfigDict, devices: int, side: int) -> DeviceStep:
    """Return the work of each of several devices.

    Args:
      config: as returned by `configs/pretrain.py`.
      devices: number of devices that share the batch.
      side: side of a stored patch in pixels.

    Raises:
      InputError: the objective is another one than MixMAE.
    """
    check_objective(config)
    check_kernels(config)
    arch = make_arch(config)
    return DeviceStep(
        arch,
        parameters=count_parameters(MixMAE(arch)),
        images=config.batch_size // devices,
        side=side,
        remat=remat_policy(config),
        grad_accum_steps=config.grad_accum_steps,
        fused=frozenset(
            field
            for field in KERNEL_FIELDS
            if config.model[field] != "plain"
            and not find_drawback(field, arch, jnp.bfloat16, decoder=True)
        ),
    )


def check_objective(config: ConfigDict) -> None:
    """Check that the objective is one that is estimated.

    Raises:
      InputError: it is another one than MixMAE.
    """
    if config.objective != "mixmae":
        raise InputError(
            f"objective is {config.objective}, expected mixmae, which alone is estimated: set "
            "--config.objective=mixmae"
        )


def step_on(device: Accelerator, step: DeviceStep, dtype: str) -> DeviceStep:
    """Return the step with the kernels that it has on a device: fused in bfloat16 on some."""
    return step if device.fused and dtype == "bfloat16" else without_kernels(step)


def without_kernels(step: DeviceStep) -> DeviceStep:
    """Return the step with plain kernels."""
    return dataclasses.replace(step, fused=frozenset())


def memory_columns(step: DeviceStep, dtype: str) -> dict[str, tuple[DeviceStep, str]]:
    """Return steps and their dtype by title: of each dtype that `dtype` may mean, and fused."""
    columns = {name: (without_kernels(step), name) for name in ITEMSIZES if dtype in ("auto", name)}
    if step.fused and "bfloat16" in columns:
        columns[f"bfloat16, fused {' and '.join(sorted(step.fused))}"] = (step, "bfloat16")
    return columns


def count_parameters(model: MixMAE) -> int:
    """Count the parameters of a model from their shapes, without initialising them."""
    arch = model.arch
    images = jax.ShapeDtypeStruct((2, arch.image_size, arch.image_size, arch.bands), jnp.float32)
    mask = jax.ShapeDtypeStruct((arch.mask_grid, arch.mask_grid), jnp.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images, mask)
    return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))


def estimate_accelerator(
    device: Accelerator, step: DeviceStep, dtype: str, results: Results
) -> Results:
    """Estimate time, rates and the largest batch on several devices of one kind.

    Args:
      device: kind of device.
      step: work of each device.
      dtype: float32, bfloat16 or auto.
      results: numbers of `estimate` that do not depend on the device.
    """
    dtype = device.resolve_dtype(dtype)
    devices = results["devices"]
    times = step_times(device, step, dtype, devices)
    images = largest_device_batch(device, step, dtype)
    rate = None if times is None else results["batch_size"] / times.seconds
    return {
        "source": device.source,
        "dtype": dtype,
        "peak_flops_per_second": device.peak(dtype),
        "utilisation": device.utilisation,
        "utilisation_measured": device.measured,
        "products_seconds": times and times.products,
        "traffic_seconds": times and times.traffic,
        "exchange_seconds": times and times.exchange,
        "step_seconds": times and times.seconds,
        "images_per_second": rate,
        "images_per_second_and_host": rate and rate / count_hosts(devices, device.interconnect),
        "run_seconds": times and results["steps"] * times.seconds,
        "reading_bytes_per_second": rate
        and {name: rate * size for name, size in results["record_bytes"].items()},
        "largest_batch": None if images is None else images * devices,
    }


def step_times(
    device: Accelerator, step: DeviceStep, dtype: str, devices: int = 1
) -> StepTimes | None:
    """Return the time of a step on a device, or None if its peak in `dtype` is unknown.

    Args:
      device: kind of device.
      step: work of the device.
      dtype: dtype of the computation, a key of `ITEMSIZES`.
      devices: number of devices that exchange gradients.
    """
    peak = device.peak(dtype)
    if peak is None:
        return None
    products = architecture.train_step_flops(step.arch, step.images, remat=step.remat)
    traffic = memory_traffic(step_on(device, step, dtype), ITEMSIZES[dtype])
    return StepTimes(
        products=products / (peak * device.utilisation),
        traffic=traffic / device.bandwidth if device.bandwidth else None,
        exchange=exchange_seconds(FLOAT32 * step.parameters, devices, device.interconnect),
    )


def memory_traffic(step: DeviceStep, itemsize: int) -> float:
    """Return the bytes that memory moves in a step: activations and parameters, repeatedly."""
    kept = activations(step.arch, itemsize, fused=step.fused).kept
    per_activation = TRAFFIC_PER_ACTIVATION * REMAT_TRAFFIC[step.remat]
    passes = PASSES_PER_MICROBATCH * step.grad_accum_steps + PASSES_PER_UPDATE
    return per_activation * step.images * kept + passes * FLOAT32 * step.parameters


def largest_device_batch(device: Accelerator, step: DeviceStep, dtype: str) -> int | None:
    """Return the most images that fit a device in even microbatches, or None if unknown."""
    if device.memory is None:
        return None
    step = step_on(device, step, dtype)
    smallest = 2 * step.grad_accum_steps

    def required(images: int) -> int:
        changed = dataclasses.replace(step, images=images)
        return sum(device_memory(changed, ITEMSIZES[dtype]).values())

    fixed = required(0)
    available = max(0.0, USABLE_MEMORY * device.memory - fixed)
    return int(available // (required(smallest) - fixed)) * smallest
