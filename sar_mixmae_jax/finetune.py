"""Fine-tuning: `train(config, workdir)`, from an encoder and labelled records to a tuned model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import optax
from ml_collections import ConfigDict

from sar_mixmae_jax import configuration, seen
from sar_mixmae_jax.downstream import (
    check_fit,
    complete,
    describe,
    make_tuning,
    open_splits,
    statistics_of,
    title,
)
from sar_mixmae_jax.encoders import find_encoder, with_encoder
from sar_mixmae_jax.errors import check_name
from sar_mixmae_jax.order import Order
from sar_mixmae_jax.processes import is_first
from sar_mixmae_jax.settled import Settled
from sar_mixmae_jax.step import TrainState, init_state
from sar_mixmae_jax.tasks import TASKS
from sar_mixmae_jax.training import Job, Outcome, run
from sar_mixmae_jax.tuning import random_params, share_loss
from sar_mixmae_jax.validation import Validator


def train(config: ConfigDict, workdir: Path, stop: Callable[[], bool] = lambda: False) -> Outcome:
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
    check_name(TASKS, config.task, "task")
    config = complete(config, config.task)
    configuration.check_batch(config, jax.device_count(), mixed=False)
    encoder = find_encoder(config, workdir)
    training, validation = open_splits(config, encoder, config.task)
    Order(len(training), config.batch_size, config.seed)  # enough of them for a batch
    tuning = make_tuning(config, encoder, training)
    check_fit(tuning, training)
    if is_first():
        settings, of = tuning.preprocessing, statistics_of(config, encoder, training.patches)
        used = dataclasses.replace(
            training.patches,
            mean=settings.mean,
            std=settings.std,
            statistics_of=of["statistics"]["of"],
        )
        print(f"standardised with {used.statistics}")

    def init(optimizer: optax.GradientTransformation) -> TrainState:
        return init_state(partial(random_params, tuning), optimizer, jax.random.key(config.seed))

    def load(state: TrainState) -> TrainState:
        return dataclasses.replace(state, params=with_encoder(state.params, tuning, encoder))

    job = Job(
        title=f"{title(config, encoder)} on {training.patches.title}",
        description=describe(config, encoder, training, tuning),
        source=training.patches.source,
        init=init,
        load=load,
        share_loss=Settled(share_loss, tuning),
        watcher=Validator(tuning, validation, max(config.batch_size, TASKS[config.task].at_once)),
        look_every=config.validate_every,
        save_every=config.checkpoint_every,
        look_first=False,
        seen=seen.joined(encoder.seen if encoder else "", training.images()),
        images=len(TASKS[config.task].images),
    )
    return run(job, config, workdir, stop)
