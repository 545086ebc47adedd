"""From configuration fields to plain settings, checked.

Configurations are `ml_collections` dictionaries made by the files in `configs`; this is the one
place that knows their field names.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models import architecture, mixmae
from sar_mixmae_jax.objectives.preprocess import Preprocessing
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.checkpoint import RetentionPolicy
from sar_mixmae_jax.training.optimizer import adamw, learning_rate, peak_learning_rate
from sar_mixmae_jax.utils.errors import InputError, look_up, unknown_name

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
            "picture_every",
            "picture_patches",
            "diagnostic_patches",
            "validate_every",
            "probe.steps",
            "probe.batch_size",
            "probe.neighbours",
        ),
    ),
    (
        "a positive number up to 10^9",
        lambda value: 0 < value <= 1e9,
        (
            "epochs",
            "schedule_epochs",
            "optimizer.base_learning_rate",
            "optimizer.clip_norm",
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
    ("a number between -10 and 10", lambda value: abs(value) <= 10, ("weighting.scale",)),
)
"""What numbers must be, and the fields that are checked; None means that a field is not used."""


def check_numbers(config: ConfigDict) -> None:
    """Checks every number in a configuration that has limits.

    Raises:
      InputError: names the first field that is outside of them.
    """
    values = dict(flatten(config.to_dict()))
    for expected, holds, names in RULES:
        for name in names:
            if values.get(name) is not None and not holds(values[name]):
                raise InputError(f"{name} is {values[name]}: expected {expected}")
    whole = values.get("schedule_epochs")
    if whole is not None and values["warmup_epochs"] >= whole:
        raise InputError(
            f"warmup_epochs is {config.warmup_epochs}: expected less than schedule_epochs, "
            f"{config.schedule_epochs}"
        )


def parse_arguments(arguments: str, **defaults: str) -> dict[str, str]:
    """Parses "name=value,name=value", the part of --config after the colon; later ones win.

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


def make_model(config: ConfigDict) -> mixmae.MixMAE:
    """The model that a configuration describes.

    Raises:
      InputError: unknown variant or dtype, or sizes that do not fit together.
    """
    changes = dict(config.model)
    arch = architecture.make_architecture(
        changes.pop("variant"), bands=len(config.bands), **changes
    )
    return mixmae.MixMAE(arch, compute_dtype(config.dtype), config.remat)


def compute_dtype(name: str) -> DTypeLike:
    """float32, bfloat16, or "auto": bfloat16 on accelerators and float32 on CPU."""
    if name == "auto":
        name = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    return look_up({"float32": jnp.float32, "bfloat16": jnp.bfloat16}, name, "dtype")


def check_pretrain_config(config: ConfigDict, devices: int) -> None:
    """Checks all that can be checked before the data is opened.

    Raises:
      InputError: a name or a number in the configuration cannot be used.
    """
    check_numbers(config)
    check_batch(config, devices)
    make_weighting(config)
    make_retention_policy(config)
    if not config.bands or len(set(config.bands)) < len(config.bands):
        raise InputError(f"bands is {config.bands}: expected at least one, each once")
    cells = make_model(config).arch.mask_grid ** 2
    if not 0 < round(config.mask_ratio * cells) < cells:
        raise InputError(
            f"mask_ratio is {config.mask_ratio}, which is {config.mask_ratio * cells:g} of {cells} "
            "cells: expected at least one cell from each of two mixed images"
        )


def make_weighting(config: ConfigDict) -> Weighting:
    """How the loss is weighted.

    Raises:
      InputError: a name or a number is not usable.
    """
    return Weighting(**config.weighting)


def make_retention_policy(config: ConfigDict) -> RetentionPolicy:
    """Which checkpoints stay.

    Raises:
      InputError: the metric is unknown.
    """
    return RetentionPolicy(
        config.max_to_keep, config.keep_period, config.keep_best, config.best_metric
    )


def make_schedule(config: ConfigDict, order: ShuffleSampler) -> optax.Schedule:
    """The learning rate at a step.

    Without `schedule_epochs` it falls over what is trained, which may be shorter than the warm-up
    in a trial: then the schedule is twice the warm-up.
    """
    trained = order.progress(config.total_steps) if config.total_steps else config.epochs
    trained = max(trained, 2 * config.warmup_epochs)
    return learning_rate(
        peak=peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size),
        end_learning_rate=config.optimizer.end_learning_rate,
        warmup_epochs=config.warmup_epochs,
        schedule_epochs=config.schedule_epochs or trained,
        order=order,
    )


def make_optimizer(config: ConfigDict, rate: optax.Schedule) -> optax.GradientTransformation:
    """What is done with the gradient."""
    return adamw(
        rate,
        b1=config.optimizer.b1,
        b2=config.optimizer.b2,
        weight_decay=config.optimizer.weight_decay,
        clip_norm=config.optimizer.clip_norm,
        layer_decay=config.optimizer.get("layer_decay", 1.0),
    )


def make_objective(config: ConfigDict, patches: PatchDataset) -> PretrainObjective:
    """What the model is trained for, with the statistics of its data.

    Raises:
      InputError: a name or a number in the configuration is not usable.
    """
    preprocessing = Preprocessing(
        image_size=config.model.image_size,
        mean=patches.mean,
        std=patches.std,
        weighting=make_weighting(config),
        resize_mode=config.resize_mode,
        random_flip=config.random_flip,
    )
    return PretrainObjective(
        make_model(config), preprocessing, config.mask_ratio, config.norm_pix_loss
    )


def check_batch(config: ConfigDict, devices: int, *, mixed: bool = True) -> None:
    """Checks that the batch can be shared among devices, and mixed in pairs in each share.

    Args:
      config: of the run.
      devices: that share the batch.
      mixed: whether images are mixed in pairs.

    Raises:
      InputError: the batch does not divide, or a share is odd where images are mixed.
    """
    shares = devices * config.grad_accum_steps
    size, rest = divmod(config.batch_size, shares)
    if not mixed and (rest or size < 1):
        raise InputError(
            f"batch_size is {config.batch_size} on {devices} device(s) with "
            f"grad_accum_steps={config.grad_accum_steps}: choose a multiple of {shares}"
        )
    if mixed and (rest or size % 2 or size < 2):
        accumulated = (
            f" of grad_accum_steps={config.grad_accum_steps}" if config.grad_accum_steps > 1 else ""
        )
        raise InputError(
            f"batch_size is {config.batch_size} on {devices} device(s){accumulated}, which is "
            f"{config.batch_size / shares:g} each: expected an even number each, because images "
            f"are mixed in pairs: choose a multiple of {2 * shares}"
        )


def from_json(fields: dict[str, Any]) -> ConfigDict:
    """A configuration of what JSON made of one, which has no tuples."""
    plain = {name: tuple(v) if isinstance(v, list) else v for name, v in flatten(fields)}
    config = ConfigDict()
    for name, value in plain.items():
        *groups, field = name.split(".")
        place = config
        for group in groups:
            if group not in place:
                place[group] = ConfigDict()
            place = place[group]
        place[field] = value
    return config.lock()


def flatten(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """("group.field", value) of every field."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
