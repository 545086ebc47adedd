"""Bound of a compiled TPU step, and changes with which a step that does not fit would fit."""

import dataclasses
from collections.abc import Iterator
from typing import NamedTuple

from ml_collections import ConfigDict

from sar_mixmae_jax.models import architecture
from sar_mixmae_jax.training.accelerators import (
    ACCELERATORS,
    TPU_KINDS,
    Accelerator,
    exchange_seconds,
)
from sar_mixmae_jax.training.cost import (
    PASSES_PER_UPDATE,
    Results,
    StepTimes,
    check_objective,
    make_device_step,
    memory_traffic,
    step_times,
    without_kernels,
)
from sar_mixmae_jax.training.device_memory import (
    FLOAT32,
    ITEMSIZES,
    DeviceStep,
    activations,
    device_memory,
)
from sar_mixmae_jax.training.step_program import StepProgram, compile_step, compiled_dtype


def estimate_compiled(config: ConfigDict, topology: str, records: int, side: int) -> Results:
    """Compile the step of a configuration for a TPU topology, and compare with the paper estimate.

    Args:
      config: as returned by `configs/pretrain.py`.
      topology: KIND:SHAPE as libtpu names it.
      records: patches in the dataset.
      side: side of a stored patch in pixels.

    Returns:
      Numbers by name, bytes and FLOP of a device and step; None where unknown. "changes" are
      settings that would make a step fit that does not.

    Raises:
      InputError: see `compile_step`; or the objective is another one than MixMAE.
    """
    check_objective(config)  # before minutes of compilation
    program = compile_step(config, topology, records, side=side)
    step = without_kernels(make_device_step(config, program.devices, side))
    dtype = compiled_dtype(config)
    device = device_of(program)
    results: Results = {
        "topology": topology,
        **program._asdict(),
        "dtype": dtype,
        "fits": program.available is None,
        "batch_size": config.batch_size,
        "images": step.images,
        "device_memory": device and device.memory,
        "estimated_memory": sum(device_memory(step, ITEMSIZES[dtype]).values()),
        "estimated_flops": train_step_flops(step),
        "estimated_traffic": memory_traffic(step, ITEMSIZES[dtype]),
        "estimated_exchanged": FLOAT32 * step.parameters,
    }
    if program.available is not None:
        results["changes"] = list(changes_to_fit(step, program, ITEMSIZES[dtype]))
    if device is not None:
        results["estimated_seconds"] = times_to_json(
            step_times(device, step, dtype, program.devices)
        )
    if program.flops is not None and program.traffic is not None:
        flops, traffic = count_loops(program.flops, program.traffic, step)
        results |= {"flops": flops, "traffic": traffic}
        if device is not None:
            bound = bound_times(device, dtype, flops, traffic, program)
            results["bound_seconds"] = times_to_json(bound)
    return results


def times_to_json(times: StepTimes | None) -> Results | None:
    """Return times by name, with their total and the name of the largest."""
    if times is None:
        return None
    return times._asdict() | {"step": times.seconds, "limit": times.limit}


def device_of(program: StepProgram) -> Accelerator | None:
    """Return figures of a device of a program, or None for a kind that is not tabulated.

    Where a chip has two devices, each is taken to have half of the chip.
    """
    name = TPU_KINDS.get(program.kind)
    if name is None:
        return None
    chip, share = ACCELERATORS[name], program.chips / program.devices
    assert chip.bfloat16
    assert chip.memory
    assert chip.bandwidth
    return dataclasses.replace(
        chip,
        float32=share * chip.float32,
        bfloat16=share * chip.bfloat16,
        memory=int(share * chip.memory),
        bandwidth=share * chip.bandwidth,
    )


def bound_times(
    device: Accelerator, dtype: str, flops: float, traffic: float, program: StepProgram
) -> StepTimes:
    """Return the least time of a step: all operations at the peak, all traffic at full bandwidth.

    Args:
      device: kind of device.
      dtype: dtype of the computation.
      flops: FLOPs of a device and step.
      traffic: bytes of a device and step.
      program: the step.
    """
    peak = device.peak(dtype)
    assert peak
    assert device.bandwidth
    return StepTimes(
        flops / peak,
        traffic / device.bandwidth,
        exchange_seconds(program.exchanged or 0, program.devices, device.interconnect),
    )


def train_step_flops(step: DeviceStep) -> int:
    """Return the operations of the matrix products of a device and step."""
    return architecture.train_step_flops(step.arch, step.images, remat=step.remat)


def count_loops(flops: float, traffic: float, step: DeviceStep) -> tuple[float, float]:
    """Return FLOP and traffic of a step with every pass of a loop.

    XLA counts the body of a loop once. The loop over microbatches is multiplied out; the update,
    which comes after it, is taken from the paper estimate. If fewer FLOP are left than the products
    of the model, other loops are in the program, and both numbers are scaled to the products.

    Args:
      flops: as counted by XLA.
      traffic: bytes, as counted by XLA.
      step: work of the device.
    """
    update = PASSES_PER_UPDATE * FLOAT32 * step.parameters
    flops = step.grad_accum_steps * flops
    traffic = step.grad_accum_steps * max(0.0, traffic - update) + update
    scale = max(1.0, train_step_flops(step) / flops)
    return scale * flops, scale * traffic


class MemoryModel(NamedTuple):
    """Memory of a step as a line over the images of a microbatch.

    Attributes:
      fixed: bytes of parameters, moments, gradients and the raw batch.
      per_image: bytes of an image of a microbatch.
    """

    fixed: int
    per_image: float

    def largest(self, available: int) -> int:
        """Return the most images of a microbatch that fit, an even number."""
        return max(0, int((available - self.fixed) / self.per_image / 2) * 2)


def fit_memory(step: DeviceStep, required: int) -> MemoryModel:
    """Return the line through the memory of a step and of its state alone.

    Args:
      step: work of the device.
      required: bytes that the compiled step needs.
    """
    copies = 4 if step.grad_accum_steps == 1 else 5  # two moments, one or two gradients
    batch = step.images * step.side**2 * step.arch.bands
    fixed = FLOAT32 * (copies * step.parameters + batch)
    return MemoryModel(fixed, max(1.0, required - fixed) * step.grad_accum_steps / step.images)


def changes_to_fit(step: DeviceStep, program: StepProgram, itemsize: int) -> Iterator[str]:
    """Yield settings with each of which a step would fit, by a line through the compiled one.

    Args:
      step: work of the device.
      program: program of the step, which does not fit.
      itemsize: bytes of a number of the computation.
    """
    available = program.available or 0
    parts, batch = step.grad_accum_steps, program.devices * step.images
    line = fit_memory(step, program.required)
    largest = line.largest(available)
    if largest >= 2:
        yield f"--config.batch_size={program.devices * parts * largest:,}"
    more = line
    if parts == 1:  # a second copy of the gradients
        more = line._replace(fixed=line.fixed + FLOAT32 * step.parameters)
    for count in range(parts + 1, step.images // 2 + 1):
        if step.images % (2 * count) == 0 and step.images // count <= more.largest(available):
            yield f"--config.grad_accum_steps={count}"
            break
    for count in range(program.devices + 1, batch // (2 * parts) + 1):
        if batch % (2 * count * parts) == 0 and batch // (count * parts) <= largest:
            yield f"{count} devices"
            break
    for remat in ("dots", "full") if step.remat == "none" else ():
        kept, block = activations(step.arch, itemsize, remat=remat)
        share = (kept + block) / activations(step.arch, itemsize).kept
        if step.images // parts <= line._replace(per_image=share * line.per_image).largest(
            available
        ):
            yield f"--config.remat={remat}"
            break
