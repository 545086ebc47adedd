"""Pretraining: `train(config, workdir)`, from a built dataset to checkpoints, logs and pictures."""

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.patch_dataset import PatchDataset, load_patch_dataset
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.models.mixmae import init_params
from sar_mixmae_jax.objectives.preprocess import preprocess
from sar_mixmae_jax.objectives.reconstruction import PretrainObjective, pretrain_loss
from sar_mixmae_jax.training.config import check_pretrain_config, make_objective
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.initialisation import (
    SourceCheckpoint,
    continued_architecture,
    inherit_preprocessing,
    load_pretraining_state,
    resolve_source_checkpoint,
    warn_weighting_changed,
)
from sar_mixmae_jax.training.optimizer import peak_learning_rate
from sar_mixmae_jax.training.reconstruction_evaluator import ReconstructionEvaluator
from sar_mixmae_jax.training.train_step import TrainState, init_state
from sar_mixmae_jax.training.trainer import RunResult, TrainingJob, run_training
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.jit import CacheablePartial

TINY_RATE = 2e-5
"""Below this peak rate a short run learns nothing."""


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Pretrains, or goes on where the run in `workdir` was.

    Args:
      config: as made by `configs/pretrain.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: asked after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the dataset, the workdir or all checkpoints cannot be used;
        what can be known beforehand is refused before anything is written.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    check_pretrain_config(config, jax.device_count())
    origin = resolve_source_checkpoint(config, workdir)
    bands = origin.bands if origin else config.bands
    patches = load_patch_dataset(config.dataset, config.data_dir, config.split, bands)
    patches = inherit_preprocessing(patches, origin)
    ShuffleSampler(
        len(patches.source), config.batch_size, config.seed
    )  # enough of them for a batch
    objective = make_objective(config, patches)
    arch = continued_architecture(objective.model.arch, origin, config.model.window_sizes)
    objective = dataclasses.replace(objective, model=objective.model.clone(arch=arch))
    warn_weighting_changed(objective.preprocessing.weighting, origin)
    check_fit(objective, patches)
    warn_of_tiny_rate(config)
    if is_primary_process():
        print(f"standardised with {patches.statistics}")

    def init(optimizer: optax.GradientTransformation) -> TrainState:
        init_model = partial(init_params, objective.model)
        return init_state(init_model, optimizer, jax.random.key(config.seed))

    job = TrainingJob(
        title=f"{config.model.variant} on {patches.title}",
        description=describe(config, patches, objective, origin),
        source=patches.source,
        init=init,
        load=partial(load_pretraining_state, arch=arch, origin=origin),
        share_loss=CacheablePartial(pretrain_loss, objective),
        watcher=ReconstructionEvaluator(
            objective,
            patches,
            count=config.diagnostic_patches,
            drawn=config.picture_patches,
            seed=config.seed,
        ),
        look_every=config.picture_every,
        save_every=config.checkpoint_every,
        look_first=True,
        seen=hashing.merge_packed_ids(origin.seen if origin else "", patches.ids()),
    )
    return run_training(job, config, workdir, stop)


def check_fit(objective: PretrainObjective, patches: PatchDataset) -> None:
    """Checks that a record can be read and brought to the model.

    Raises:
      InputError: it cannot be read, or is of a size that does not fit.
    """
    image = patches.source[0]["backscatter"]
    prepare = partial(preprocess, settings=objective.preprocessing)
    batch = jax.ShapeDtypeStruct((2, *image.shape), image.dtype)
    jax.eval_shape(prepare, batch, jax.random.key(0))


def warn_of_tiny_rate(config: ConfigDict) -> None:
    """Warns where the published rate and a small batch make a rate that learns nothing."""
    peak = peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size)
    if peak < TINY_RATE and is_primary_process():
        logging.warning(
            "the peak learning rate is %.1e: the published base rate of 1.5e-4 is for batches of "
            "256, and this batch is %d; raise --config.optimizer.base_learning_rate",
            peak,
            config.batch_size,
        )


def describe(
    config: ConfigDict,
    patches: PatchDataset,
    objective: PretrainObjective,
    origin: SourceCheckpoint | None,
) -> dict[str, Any]:
    """What is trained on what: all that a stranger needs to use the encoder, as JSON has it."""
    description = {
        "config": json.loads(config.to_json_best_effort()),
        "dataset": patches.describe(),
        "model": {
            "variant": config.model.variant,
            "architecture": dataclasses.asdict(objective.model.arch),
            "weighting": dataclasses.asdict(objective.preprocessing.weighting),
            "dtype": np.dtype(objective.model.dtype).name,
            **patches.conventions(),
            "pretrained": origin.description if origin else None,
        },
    }
    return json.loads(json.dumps(description))
