"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.architecture import Architecture
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.models.resize import (
    change_decoder_bands,
    change_encoder_bands,
    resize_position_tables,
)
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.objectives.weighting import Weighting
from sar_mixmae_jax.training.config import (
    check_batch,
    check_numbers,
    make_arch,
    make_objective,
    make_optimizer,
    make_retention_policy,
    make_schedule,
)
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.kernel_choice import select_kernels
from sar_mixmae_jax.training.optimizer import at_first_step
from sar_mixmae_jax.training.reconstruction_evaluator import ReconstructionEvaluator
from sar_mixmae_jax.training.restore import read_subtree
from sar_mixmae_jax.training.run_description import ModelDescription, RunDescription
from sar_mixmae_jax.training.setup import (
    RunSetup,
    check_fit,
    warn_of_low_learning_rate,
    warn_of_shrinking,
)
from sar_mixmae_jax.training.source_checkpoint import (
    SourceCheckpoint,
    change_of_bands,
    encoder_param_shapes,
    inherit_statistics,
    merge_train_ids,
    resize_architecture,
    resolve_source_checkpoint,
    with_bands,
)
from sar_mixmae_jax.training.train_step import Batch, CacheablePartial, TrainState
from sar_mixmae_jax.training.trainer import RunResult, run_training
from sar_mixmae_jax.utils.errors import InputError


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Pretrain, or resume the run in `workdir`.

    Args:
      config: as returned by `configs/pretrain.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: called after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the dataset, the workdir or all checkpoints cannot be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint is kept.
    """
    return run_training(set_up(config, workdir), workdir, stop)


def set_up(config: ConfigDict, workdir: Path) -> RunSetup:
    """Build all that a pretraining run needs; nothing is written.

    Args:
      config: as returned by `configs/pretrain.py`.
      workdir: working directory of a run that is resumed, for the checkpoint that it began with.

    Raises:
      InputError: the dataset, model or optimizer cannot be built from the configuration.
    """
    check_numbers(config)
    check_batch(config, jax.device_count())
    retention = make_retention_policy(config)
    arch = make_arch(config)
    bands = tuple(config.bands)
    source_checkpoint = resolve_source_checkpoint(config, workdir)
    source_checkpoint = with_bands(source_checkpoint, bands, config.init_bands)

    dataset = load_patch_dataset(config.dataset, config.data_dir, config.split, bands)
    dataset = inherit_statistics(dataset, source_checkpoint)
    sampler = ShuffleSampler(len(dataset.source), config.batch_size, config.seed)
    schedule = make_schedule(config, sampler)
    optimizer = make_optimizer(config, schedule)

    arch = continued_architecture(arch, source_checkpoint, config.model.window_sizes)
    kernels = select_kernels(config, arch, decoder=True)
    objective = make_objective(config, dataset, arch, kernels)
    check_fit(partial(prepare, settings=objective.preprocessing), dataset.source)
    warn_of_shrinking(objective.preprocessing, dataset.size)
    warn_weighting_changed(objective.preprocessing.weighting, source_checkpoint)
    warn_of_low_learning_rate(config)
    name = config.model.variant
    if config.objective != "mixmae":
        name += f" ({config.objective})"
    if is_primary_process():
        print(f"standardised with {dataset.statistics_text}")

    return RunSetup(
        config=config,
        title=f"{name} on {dataset.title}",
        description=describe(config, dataset, objective, source_checkpoint),
        source=dataset.source,
        sampler=sampler,
        schedule=schedule,
        optimizer=optimizer,
        retention=retention,
        init_params=partial(init_params, objective.model),
        load_weights=partial(
            load_pretraining_state, arch=arch, source_checkpoint=source_checkpoint, bands=bands
        ),
        loss_fn=CacheablePartial(pretrain_loss, objective),
        evaluator=ReconstructionEvaluator(
            objective,
            dataset,
            count=config.diagnostic_patches,
            drawn=config.picture_patches,
            seed=config.seed,
        ),
        eval_every=config.picture_every,
        eval_at_start=True,
        train_ids=merge_train_ids(source_checkpoint, dataset.ids()),
        kernels=kernels,
    )


def prepare(batch: Batch, key: jax.Array, settings: Preprocessing) -> Any:
    """Preprocess the images of a batch."""
    return preprocess(batch["backscatter"], key, settings)


def describe(
    config: ConfigDict,
    dataset: PatchDataset,
    objective: PretrainObjective,
    source_checkpoint: SourceCheckpoint | None,
) -> RunDescription:
    """Return the description that is stored with the run and its checkpoints."""
    speckle = objective.preprocessing.speckle
    model = ModelDescription(
        variant=config.model.variant,
        architecture=objective.model.arch,
        dtype=np.dtype(objective.model.dtype).name,
        bands=dataset.bands,
        unit=dataset.unit,
        statistics=dataset.statistics,
        weighting=objective.preprocessing.weighting,
        speckle=speckle if speckle.filter != "none" else None,
        pretrained=source_checkpoint.description if source_checkpoint else None,
    )
    return RunDescription(json.loads(config.to_json_best_effort()), dataset.describe(), model)


# ---- continuing from a checkpoint

INPUT_FIELDS = ("image_size", "pretrain_image_size", "window_sizes", "bands")
"""Fields of an architecture that may differ from those of the source checkpoint."""


def warn_weighting_changed(
    weighting: Weighting, source_checkpoint: SourceCheckpoint | None
) -> None:
    """Log a warning if the weighting of the loss differs from that of the source checkpoint."""
    before = source_checkpoint.description.weighting if source_checkpoint else None
    if before and before != weighting:
        old, new = dataclasses.asdict(before), dataclasses.asdict(weighting)
        differing = [name for name in old if old[name] != new[name]]
        logging.warning(
            "the loss was weighted otherwise before: %s; to continue with that weighting, set %s",
            ", ".join(f"{name} was {old[name]} and is now {new[name]}" for name in differing),
            " ".join(f"--config.weighting.{name}={old[name]}" for name in differing),
        )


def continued_architecture(
    arch: Architecture,
    source_checkpoint: SourceCheckpoint | None,
    windows: tuple[int, ...] | None = None,
) -> Architecture:
    """Return the architecture of a pretraining that continues from a checkpoint.

    Args:
      arch: as the configuration has it.
      source_checkpoint: where to start from; None: nowhere.
      windows: of its stages; None: those of the encoder, which grow with the images.

    Raises:
      InputError: the model is of another size, or there is no decoder.
    """
    if source_checkpoint is None:
        return arch
    if not source_checkpoint.has_decoder:
        raise InputError(
            f"{source_checkpoint.path} has no decoder, so pretraining cannot continue from it: "
            "choose a checkpoint of pretraining"
        )
    sizes = {
        field.name: (getattr(arch, field.name), getattr(source_checkpoint.arch, field.name))
        for field in dataclasses.fields(arch)
        if field.name not in INPUT_FIELDS
    }
    differing = [
        f"{name} is {ours} and there {its}" for name, (ours, its) in sizes.items() if ours != its
    ]
    if differing:
        raise InputError(
            f"{source_checkpoint.path} is a {source_checkpoint.variant} of another size "
            f"({'; '.join(differing)}): set config.model to its sizes"
        )
    its = dataclasses.replace(source_checkpoint.arch, bands=arch.bands)
    return resize_architecture(its, arch.image_size, windows)


def load_pretraining_state(
    state: TrainState,
    arch: Architecture,
    source_checkpoint: SourceCheckpoint | None,
    bands: tuple[str, ...],
) -> TrainState:
    """Return a first state with the parameters of a checkpoint, and its optimizer at the same size.

    Args:
      state: before the first step.
      arch: architecture of its model.
      source_checkpoint: of `with_bands`; where to start from; None: nowhere.
      bands: names of the bands of the model.

    Raises:
      InputError: the checkpoint is damaged.
    """
    if source_checkpoint is None:
        return state
    change = change_of_bands(source_checkpoint, bands)
    decoder = state.params["decoder"]
    head = {
        name: jax.ShapeDtypeStruct(
            (*values.shape[:-1], values.shape[-1] // len(bands) * len(source_checkpoint.bands)),
            values.dtype,
        )
        for name, values in decoder["pred"].items()
    }
    parts: dict[str, Any] = {
        "params": {
            "encoder": encoder_param_shapes(source_checkpoint.arch),
            "decoder": {**decoder, "pred": head},
        }
    }
    same = bands == source_checkpoint.bands and all(
        getattr(arch, name) == getattr(source_checkpoint.arch, name) for name in INPUT_FIELDS
    )
    moments = same and source_checkpoint.has_optimizer
    if moments:
        parts["opt_state"] = state.opt_state
    else:
        reason = (
            f"stores the state of an optimizer for {source_checkpoint.arch.image_size} px and "
            f"the bands {', '.join(source_checkpoint.bands)}"
            if source_checkpoint.has_optimizer
            else "stores no state of an optimizer"
        )
        logging.warning("%s %s: moments of AdamW start at zero", source_checkpoint.path, reason)
    try:
        stored = read_subtree(source_checkpoint.path, parts)
    except ValueError as error:
        raise InputError(f"{source_checkpoint.path}: {error}: choose another checkpoint") from error
    encoder = change_encoder_bands(stored["params"]["encoder"], *change)
    params = {
        "encoder": resize_position_tables(encoder, state.params["encoder"]),
        "decoder": change_decoder_bands(stored["params"]["decoder"], *change),
    }
    opt_state = at_first_step(stored["opt_state"]) if moments else state.opt_state
    return dataclasses.replace(state, params=params, opt_state=opt_state, step=jnp.int32(0))
