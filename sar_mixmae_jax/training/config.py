"""Parts of a run built from configuration fields, and checks of these fields.

Configurations are `ml_collections` dictionaries made by the files in `configs`.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, ReadOptions
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.architecture import Architecture, make_architecture
from sar_mixmae_jax.models.layers import PLAIN, REMAT, Kernels
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.reconstruction import OBJECTIVES, PretrainObjective
from sar_mixmae_jax.objectives.speckle_filter import SpeckleFilter
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.checkpoint import RetentionPolicy
from sar_mixmae_jax.training.optimizer import adamw, learning_rate, peak_learning_rate
from sar_mixmae_jax.utils.errors import InputError, check_name, look_up, unknown_name

KERNEL_FIELDS = tuple(field.name for field in dataclasses.fields(Kernels))
"""Fields of `config.model` that name kernels, and not sizes."""
KERNEL_CHOICES = ("auto", "plain", "fused")
"""Values of these fields."""

Number = float | int
RULES: tuple[tuple[str, Callable[[Number], bool], tuple[str, ...]], ...] = (
    (
        "a whole number from 1 to 10^12",
        lambda value: 1 <= value <= 10**12,
        (
            "grad_accum_steps",
            "batch_size",
            "total_steps",
            "log_every",
            "checkpoint_every",
            "max_to_keep",
            "keep_period",
            "keep_best",
            "crop_size",
            "picture_every",
            "diagnostic_patches",
            "data.read_threads",
            "data.prefetch",
            "validate_every",
            "probe.steps",
            "probe.batch_size",
            "probe.neighbours",
        ),
    ),
    (
        "a whole number from 0 to 1,000",
        lambda value: 0 <= value <= 1000,
        ("data.read_workers", "picture_patches"),
    ),
    (
        "a positive number up to 10^9",
        lambda value: 0 < value <= 1e9,
        (
            "epochs",
            "schedule_epochs",
            "optimizer.base_learning_rate",
            "optimizer.clip_norm",
            "upload_every",
        ),
    ),
    (
        "zero or a positive number up to 10^6",
        lambda value: 0 <= value <= 1e6,
        (
            "warmup_epochs",
            "optimizer.end_learning_rate",
            "optimizer.weight_decay",
            "probe.weight_decay",
        ),
    ),
    (
        "a number between 0 and 1",
        lambda value: 0 < value < 1,
        ("mask_ratio", "optimizer.b1", "optimizer.b2"),
    ),
    ("zero or a number below 1", lambda value: 0 <= value < 1, ("drop_path",)),
    ("a number from 0.001 to 1,000", lambda value: 1e-3 <= value <= 1e3, ("probe.temperature",)),
    (
        "a number above 0, at most 1",
        lambda value: 0 < value <= 1,
        ("label_fraction", "optimizer.layer_decay"),
    ),
    (
        "a whole number from 0 to below 2^63",
        lambda value: 0 <= value < 2**63,
        ("seed", "label_seed"),
    ),
)
"""(limits in words, test, fields); a field that is None is not used and not checked."""


def check_numbers(config: ConfigDict) -> None:
    """Check every number in a configuration that has limits.

    Raises:
      InputError: names the first field that is outside of them.
    """
    values = dict(flatten(config.to_dict()))
    for expected, holds, names in RULES:
        for name in names:
            if values.get(name) is not None and not holds(values[name]):
                raise InputError(f"{name} is {values[name]}: expected {expected}")
    schedule_epochs = values.get("schedule_epochs")
    if schedule_epochs is not None and values["warmup_epochs"] >= schedule_epochs:
        raise InputError(
            f"warmup_epochs is {config.warmup_epochs}: expected less than schedule_epochs, "
            f"{config.schedule_epochs}"
        )


def parse_arguments(arguments: str, **defaults: str) -> dict[str, str]:
    """Parse "name=value,name=value", the part of --config after the colon; later ones win.

    Raises:
      InputError: an argument is not of this form, or its name is unknown.
    """
    values = dict(defaults)
    for argument in filter(None, arguments.split(",")):
        name, separator, value = argument.partition("=")
        if not separator:
            raise InputError(f"found the config argument {argument!r}, expected name=value")
        if name not in defaults:
            raise unknown_name(name, defaults, "config argument")
        values[name] = value
    return values


MASK_ROUNDING: dict[str, Callable[[float], float]] = {"nearest": round, "down": math.floor}
"""Functions from mask units times `mask_ratio` to the number of units that are masked."""


def masked_share(config: ConfigDict, units: int) -> float:
    """Return the share of mask units that are masked, by `mask_ratio` and `mask_rounding`.

    Args:
      config: configuration of a pretraining run.
      units: mask units of an image.

    Raises:
      InputError: the rounding is unknown, or nothing of one of two mixed images is left.
    """
    masked = look_up(MASK_ROUNDING, config.mask_rounding, "mask_rounding")(
        config.mask_ratio * units
    )
    if not 0 < masked < units:
        raise InputError(
            f"mask_ratio is {config.mask_ratio}, which is {config.mask_ratio * units:g} of {units} "
            "mask units: expected at least one unit from each of two mixed images"
        )
    return config.mask_ratio if config.mask_rounding == "nearest" else masked / units


def make_arch(config: ConfigDict) -> Architecture:
    """Return the architecture of the model to pretrain.

    Raises:
      InputError: unknown variant, sizes that do not fit together, bands that repeat, or a mask
        ratio that leaves nothing to reconstruct.
    """
    check_bands(config.bands)
    sizes = model_sizes(config)
    arch = make_architecture(sizes.pop("variant"), bands=len(config.bands), **sizes)
    masked_share(config, arch.mask_grid**2)
    return arch


def check_kernels(config: ConfigDict) -> None:
    """Check the names of kernels.

    Raises:
      InputError: a name is unknown, or there is none.
    """
    for field in KERNEL_FIELDS:
        check_name(KERNEL_CHOICES, config.model.get(field), f"model.{field}")


def check_bands(bands: Any) -> None:
    """Check the names of the bands of a model.

    Raises:
      InputError: there are none, one repeats, or they are a text in place of a tuple.
    """
    named = isinstance(bands, tuple | list) and all(isinstance(band, str) for band in bands)
    if not (named and bands) or len(set(bands)) < len(bands) or any("," in band for band in bands):
        raise InputError(
            f"bands is {bands}: expected at least one name, each once, such as --config.bands=VV "
            "or --config.bands=\"('HV','HH')\""
        )


def model_sizes(config: ConfigDict) -> dict[str, Any]:
    """Return the fields of `config.model` that are fields of an `Architecture`, and the variant."""
    return {name: value for name, value in dict(config.model).items() if name not in KERNEL_FIELDS}


def compute_dtype(name: str) -> DTypeLike:
    """Return the type for "float32", "bfloat16", or "auto": bfloat16, but float32 on CPU."""
    check_name(("auto", "bfloat16", "float32"), name, "dtype")
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[name]


def remat_policy(config: ConfigDict) -> str:
    """Return the entry of `REMAT` that `config.remat` names; True is full, and False is none."""
    name = {"True": "full", "False": "none"}.get(config.remat, config.remat)
    check_name(REMAT, name, "remat")
    return name


def make_read_options(config: ConfigDict) -> ReadOptions:
    """Return with how many threads and processes records are read."""
    data = config.data
    return ReadOptions(data.read_threads, data.read_workers, data.prefetch)


def make_retention_policy(config: ConfigDict) -> RetentionPolicy:
    """Return which checkpoints are kept.

    Raises:
      InputError: the metric is unknown.
    """
    return RetentionPolicy(
        config.max_to_keep, config.keep_period, config.keep_best, config.best_metric
    )


def make_schedule(config: ConfigDict, sampler: ShuffleSampler) -> optax.Schedule:
    """Return the learning rate as a function of the step.

    Without `schedule_epochs` it decays over what is trained, but at least over twice the warm-up:
    a trial may be shorter than the warm-up.
    """
    trained = sampler.progress(config.total_steps) if config.total_steps else config.epochs
    trained = max(trained, 2 * config.warmup_epochs)
    return learning_rate(
        peak=peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size),
        end_learning_rate=config.optimizer.end_learning_rate,
        warmup_epochs=config.warmup_epochs,
        schedule_epochs=config.schedule_epochs or trained,
        sampler=sampler,
    )


def make_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Return AdamW with the settings of the configuration."""
    return adamw(
        schedule,
        b1=config.optimizer.b1,
        b2=config.optimizer.b2,
        weight_decay=config.optimizer.weight_decay,
        clip_norm=config.optimizer.clip_norm,
        layer_decay=config.optimizer.get("layer_decay", 1.0),
        freeze_encoder=config.get("freeze_encoder", False),
    )


def make_objective(
    config: ConfigDict,
    dataset: PatchDataset,
    arch: Architecture | None = None,
    kernels: Kernels = PLAIN,
) -> PretrainObjective:
    """Return model, preprocessing and loss of pretraining.

    Args:
      config: configuration of a pretraining run.
      dataset: for the statistics that images are standardised with.
      arch: architecture of the model; None: that of the configuration.
      kernels: kernels of the model.

    Raises:
      InputError: a name or a number in the configuration cannot be used.
    """
    preprocessing = Preprocessing(
        image_size=config.model.image_size,
        mean=dataset.statistics.mean,
        std=dataset.statistics.std,
        weighting=Weighting(**config.weighting),
        resize_mode=config.resize_mode,
        random_flip=config.random_flip,
        speckle=SpeckleFilter(**config.speckle),
    )
    dtype = compute_dtype(config.dtype)
    model_class = look_up(OBJECTIVES, config.objective, "objective")
    model = model_class(arch or make_arch(config), dtype, remat_policy(config), kernels)
    share = masked_share(config, model.arch.mask_grid**2)
    return PretrainObjective(model, preprocessing, share, config.norm_pix_loss)


def check_batch(config: ConfigDict, devices: int) -> None:
    """Check that the batch divides into microbatches, of even size where images are mixed.

    Args:
      config: configuration of the run; its objective tells whether images are mixed in pairs.
      devices: among which the batch is split.

    Raises:
      InputError: the batch does not divide, or a microbatch is odd where images are mixed.
    """
    mixed = config.get("objective") == "mixmae"
    microbatches = devices * config.grad_accum_steps
    size, rest = divmod(config.batch_size, microbatches)
    if not mixed and (rest or size < 1):
        raise InputError(
            f"batch_size is {config.batch_size} on {devices} device(s) with "
            f"grad_accum_steps={config.grad_accum_steps}: choose a multiple of {microbatches}"
        )
    if mixed and (rest or size % 2 or size < 2):
        accumulated = (
            f" of grad_accum_steps={config.grad_accum_steps}" if config.grad_accum_steps > 1 else ""
        )
        raise InputError(
            f"batch_size is {config.batch_size} on {devices} device(s){accumulated}, which is "
            f"{config.batch_size / microbatches:g} each: expected an even number each, because "
            f"images are mixed in pairs: choose a multiple of {2 * microbatches}"
        )


def from_json(fields: dict[str, Any]) -> ConfigDict:
    """Return the configuration that was stored as JSON, which has no tuples."""
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in flatten(fields)}
    config = ConfigDict()
    for name, value in plain.items():
        *groups, field = name.split(".")
        parent = config
        for group in groups:
            if group not in parent:
                parent[group] = ConfigDict()
            parent = parent[group]
        parent[field] = value
    return config.lock()


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ("group.field", value) of every field."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
