"""Memory of a training step on one device, counted from the sizes of the model.

Activations are what automatic differentiation keeps of this model for the backward pass, array by
array. A compiler may keep less, by computing cheap things again, or more, for other layouts.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import flops
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.mixmae import MixMAE
from sar_mixmae_jax.training.accelerators import ACCELERATORS, Accelerator
from sar_mixmae_jax.training.config import check_pretrain_config, make_model
from sar_mixmae_jax.training.sharding import PREFETCH
from sar_mixmae_jax.utils.errors import InputError

FLOAT32 = 4
RAW_BATCHES = PREFETCH + 2
"""Raw batches on a device: those that wait, the one in use, and the one on its way."""


@dataclasses.dataclass(frozen=True)
class DeviceStep:
    """What one device does in a training step.

    Attributes:
      arch: of the model.
      parameters: their number.
      images: the device's part of the batch.
      side: of a raw patch in pixels.
      remat: whether blocks keep their input only and are computed again in the backward pass.
      accumulate: shares of the device's part that are computed one after the other.
    """

    arch: Architecture
    parameters: int
    images: int
    side: int
    remat: bool = False
    accumulate: int = 1


class Activations(NamedTuple):
    """Bytes for one image.

    Attributes:
      kept: from the forward to the backward pass.
      recomputed: of the largest block, while the backward pass goes through it; 0 without remat.
    """

    kept: int
    recomputed: int


class Block(NamedTuple):
    """The sizes of a transformer block that activations depend on, for one image.

    Attributes:
      values: tokens times width.
      logits: heads times tokens times tokens seen by each.
    """

    values: int
    logits: int


def activations(arch: Architecture, itemsize: int, *, remat: bool = False) -> Activations:
    """What the backward pass needs of the forward pass, for one image.

    Args:
      arch: of the model.
      itemsize: bytes of a number of the computation: 4 in float32, 2 in bfloat16.
      remat: whether blocks keep their input only and are computed again.
    """
    outside = _outside_of_blocks(arch, itemsize)
    every = blocks(arch)
    whole = [_block(block, arch.mlp_ratio, itemsize) for block in every]
    if remat:
        return Activations(outside + sum(itemsize * block.values for block in every), max(whole))
    return Activations(outside + sum(whole), 0)


def device_memory(step: DeviceStep, itemsize: int) -> dict[str, int]:
    """Bytes on a device by what they are for.

    Args:
      step: what it does.
      itemsize: bytes of a number of the computation.
    """
    arch, parameters = step.arch, step.parameters
    share = step.images // step.accumulate
    kept, recomputed = activations(arch, itemsize, remat=step.remat)
    pixels = arch.image_size**2 * arch.bands
    rounded = itemsize < FLOAT32 and not step.remat  # kept by every product; with remat made again
    return {
        "parameters, float32": FLOAT32 * parameters,
        "parameters, rounded": itemsize * parameters if rounded else 0,
        "gradients": FLOAT32 * parameters * (1 if step.accumulate == 1 else 2),  # and their sum
        "AdamW moments": 2 * FLOAT32 * parameters,
        "activations": share * kept,
        "recomputed block": share * recomputed,
        "raw batches": RAW_BATCHES * step.images * step.side**2 * arch.bands * FLOAT32,
        "images, weights, validity": share * pixels * (2 * FLOAT32 + 1),
    }


def blocks(arch: Architecture) -> list[Block]:
    """All blocks in their order; those of the decoder see both sequences of a mixture."""
    found = []
    for stage, (depth, window) in enumerate(zip(arch.depths, arch.window_sizes, strict=True)):
        side, width = arch.image_size // (arch.patch_size << stage), arch.embed_dim << stage
        logits = arch.num_heads[stage] * side**2 * min(window, side) ** 2
        found += depth * [Block(side**2 * width, logits)]
    cells = arch.mask_grid**2
    logits = 2 * arch.decoder_num_heads * cells**2
    return found + arch.decoder_depth * [Block(2 * cells * arch.decoder_embed_dim, logits)]


def _block(block: Block, mlp_ratio: int, itemsize: int) -> int:
    """Two LayerNorms; query, key, value and the output of attention; softmax; the MLP.

    The exact GELU keeps its argument, erfc, the derivative of erfc, and its value.
    """
    norms = 2 * _layer_norm(block.values, itemsize)
    attention = 4 * itemsize * block.values + (FLOAT32 + itemsize) * block.logits
    mlp = 4 * mlp_ratio * itemsize * block.values
    return norms + attention + mlp


def _layer_norm(values: int, itemsize: int) -> int:
    """Float32: twice the difference from the mean, it itself, the factor; and what comes out."""
    return (3 * FLOAT32 + itemsize) * values


def _outside_of_blocks(arch: Architecture, itemsize: int) -> int:
    """Patch embedding, merging, the last norms, and the error of the prediction."""
    side = arch.image_size // arch.patch_size
    pixels, cells = arch.image_size**2 * arch.bands, arch.mask_grid**2
    merged = sum(
        (side >> stage) ** 2 * (arch.embed_dim << stage) for stage in range(len(arch.depths) - 1)
    )
    last = cells * (arch.embed_dim << (len(arch.depths) - 1))
    decoded = 2 * cells * arch.decoder_embed_dim
    norms = sum(
        _layer_norm(values, itemsize)
        for values in (side**2 * arch.embed_dim, merged, last, decoded)
    )
    return norms + itemsize * pixels + 2 * FLOAT32 * pixels


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
    count = flops.train_step_flops(step.arch, step.images, remat=step.remat)
    moved = traffic(step, ITEMSIZES[dtype])
    return Times(
        count / (peak * device.utilisation), moved / device.bandwidth if device.bandwidth else None
    )


def traffic(step: DeviceStep, itemsize: int) -> float:
    """Bytes that memory moves in a step: activations and parameters, several times each."""
    kept = activations(step.arch, itemsize).kept
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
    check_pretrain_config(config, devices)
    order = ShuffleSampler(records, config.batch_size, config.seed)
    model = make_model(config)
    step = device_step(config, model, devices, side)
    steps = config.total_steps or order.steps(config.epochs)
    step_flops = flops.train_step_flops(model.arch, config.batch_size, remat=config.remat)
    record = side**2 * model.arch.bands
    results = {
        "variant": config.model.variant,
        "parameters": step.parameters,
        "records": records,
        "batch_size": config.batch_size,
        "devices": devices,
        "grad_accum_steps": step.accumulate,
        "remat": step.remat,
        "steps": steps,
        "encoder_flops": flops.encoder_flops(model.arch),
        "decoder_flops": flops.decoder_flops(model.arch),
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
        model.arch,
        parameters,
        config.batch_size // devices,
        side,
        config.remat,
        config.grad_accum_steps,
    )


def count_parameters(model: MixMAE) -> int:
    """The number of parameters, from the shapes that initialisation would make."""
    arch = model.arch
    images = jax.ShapeDtypeStruct((2, arch.image_size, arch.image_size, arch.bands), jnp.float32)
    mask = jax.ShapeDtypeStruct((arch.mask_grid, arch.mask_grid), jnp.float32)
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
