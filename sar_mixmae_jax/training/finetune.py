"""Fine-tuning: `train(config, workdir)`, from an encoder and labelled records to a tuned model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import finetune_loss, init_model_params, prepare_batch
from sar_mixmae_jax.training.config import (
    check_batch,
    make_optimizer,
    make_retention_policy,
    make_schedule,
)
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.downstream import (
    complete_config,
    describe_run,
    input_statistics,
    load_splits,
    make_finetune_objective,
    run_title,
)
from sar_mixmae_jax.training.initialisation import replace_encoder, resolve_encoder
from sar_mixmae_jax.training.setup import RunSetup, check_fit
from sar_mixmae_jax.training.train_step import TrainState
from sar_mixmae_jax.training.trainer import RunResult, run_training
from sar_mixmae_jax.training.validation_evaluator import ValidationEvaluator
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.jit import CacheablePartial


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Fine-tune, or resume the run in `workdir`.

    Args:
      config: as returned by `configs/finetune.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: called after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the encoder, the dataset, the workdir or all checkpoints cannot
        be used.
      DivergedError: the loss or its gradient is not finite; the last checkpoint is kept.
    """
    return run_training(set_up(config, workdir), workdir, stop)


def set_up(config: ConfigDict, workdir: Path) -> RunSetup:
    """Build all that a fine-tuning run needs; nothing is written.

    Args:
      config: as returned by `configs/finetune.py`.
      workdir: of a run that is resumed, for the encoder that it began with.

    Raises:
      InputError: names what cannot be built.
    """
    task = get_task(config.task)
    config = complete_config(config, task)
    check_batch(config, jax.device_count(), mixed=False)
    encoder = resolve_encoder(config, workdir)
    training, validation = load_splits(config, encoder, task)
    sampler = ShuffleSampler(len(training), config.batch_size, config.seed)
    schedule = make_schedule(config, sampler)
    tuning = make_finetune_objective(config, encoder, training)
    check_fit(partial(prepare_batch, objective=tuning), training.patches.source)
    if is_primary_process():
        statistics = input_statistics(config, encoder, training.patches)
        used = dataclasses.replace(training.patches, statistics=statistics)
        print(f"standardised with {used.statistics_text}")

    def load(state: TrainState) -> TrainState:
        return dataclasses.replace(
            state, params=replace_encoder(state.params, tuning.model.arch, encoder)
        )

    return RunSetup(
        config=config,
        title=f"{run_title(config, encoder)} on {training.patches.title}",
        description=describe_run(config, encoder, training, tuning),
        source=training.patches.source,
        sampler=sampler,
        schedule=schedule,
        optimizer=make_optimizer(config, schedule),
        retention=make_retention_policy(config),
        init_params=partial(init_model_params, tuning),
        load_weights=load,
        loss_fn=CacheablePartial(finetune_loss, tuning),
        evaluator=ValidationEvaluator(
            tuning, validation, max(config.batch_size, task.eval_batch_size)
        ),
        eval_every=config.validate_every,
        eval_at_start=False,
        train_ids=hashing.merge_packed_ids(encoder.seen if encoder else "", training.image_ids()),
        images_per_record=len(task.images),
    )
