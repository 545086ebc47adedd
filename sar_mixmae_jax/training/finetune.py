"""Fine-tuning: `train(config, workdir)`, from an encoder and labelled records to a tuned model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import optax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import finetune_loss, init_model_params
from sar_mixmae_jax.training.config import check_batch
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.downstream import (
    check_fit,
    complete_config,
    describe_run,
    load_splits,
    make_finetune_objective,
    preprocessing_conventions,
    run_title,
)
from sar_mixmae_jax.training.initialisation import replace_encoder, resolve_encoder
from sar_mixmae_jax.training.train_step import TrainState, init_state
from sar_mixmae_jax.training.trainer import RunResult, TrainingJob, run_training
from sar_mixmae_jax.training.validation_evaluator import ValidationEvaluator
from sar_mixmae_jax.utils import hashing
from sar_mixmae_jax.utils.jit import CacheablePartial


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> RunResult:
    """Fine-tunes, or goes on where the run in `workdir` was.

    Args:
      config: as made by `configs/finetune.py`.
      workdir: for everything the run writes; the same folder for all processes.
      stop: asked after every step; True, in any process, saves and ends the run early.

    Raises:
      InputError: the configuration, the encoder, the dataset, the workdir or all checkpoints cannot
        be used; what can be known beforehand is refused before anything is written.
      DivergedError: the loss or its gradient is not finite; the last checkpoint stays.
    """
    task = get_task(config.task)
    config = complete_config(config, task)
    check_batch(config, jax.device_count(), mixed=False)
    encoder = resolve_encoder(config, workdir)
    training, validation = load_splits(config, encoder, task)
    ShuffleSampler(len(training), config.batch_size, config.seed)  # enough of them for a batch
    tuning = make_finetune_objective(config, encoder, training)
    check_fit(tuning, training)
    if is_primary_process():
        settings, of = (
            tuning.preprocessing,
            preprocessing_conventions(config, encoder, training.patches),
        )
        used = dataclasses.replace(
            training.patches,
            mean=settings.mean,
            std=settings.std,
            statistics_of=of["statistics"]["of"],
        )
        print(f"standardised with {used.statistics}")

    def init(optimizer: optax.GradientTransformation) -> TrainState:
        return init_state(
            partial(init_model_params, tuning), optimizer, jax.random.key(config.seed)
        )

    def load(state: TrainState) -> TrainState:
        return dataclasses.replace(
            state, params=replace_encoder(state.params, tuning.model.arch, encoder)
        )

    job = TrainingJob(
        title=f"{run_title(config, encoder)} on {training.patches.title}",
        description=describe_run(config, encoder, training, tuning),
        source=training.patches.source,
        init=init,
        load=load,
        share_loss=CacheablePartial(finetune_loss, tuning),
        watcher=ValidationEvaluator(
            tuning, validation, max(config.batch_size, task.eval_batch_size)
        ),
        look_every=config.validate_every,
        save_every=config.checkpoint_every,
        look_first=False,
        seen=hashing.merge_packed_ids(encoder.seen if encoder else "", training.image_ids()),
        images=len(task.images),
    )
    return run_training(job, config, workdir, stop)
