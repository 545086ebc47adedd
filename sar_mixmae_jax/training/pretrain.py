"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.training.attention_choice import select_attention
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
from sar_mixmae_jax.training.initialisation import (
    SourceCheckpoint,
    continued_architecture,
    inherit_statistics,
    load_pretraining_state,
    resolve_source_checkpoint,
    warn_weighting_changed,
    with_bands,
)
from sar_mixmae_jax.training.reconstruction_evaluator import ReconstructionEvaluator
from sar_mixmae_jax.training.run_description import ModelDescription, RunDescription
from sar_mixmae_jax.training.setup import (
    RunSetup,
    check_fit,
    warn_of_low_learning_rate,
    warn_of_shrinking,
)
from sar_mixmae_jax.training.train_step import Batch, CacheablePartial
from sar_mixmae_jax.training.trainer import RunResult, run_training
from sar_mixmae_jax.utils import hashing


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
      workdir: of a run that is resumed, for the checkpoint that it began with.

    Raises:
      InputError: names what cannot be built.
    """
    check_numbers(config)
    check_batch(config, jax.device_count(), mixed=config.objective == "mixmae")
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
    attention = select_attention(config, arch, decoder=True)
    objective = make_objective(config, dataset, arch, attention)
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
        train_ids=hashing.merge_packed_ids(
            source_checkpoint.train_ids if source_checkpoint else "", dataset.ids()
        ),
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
