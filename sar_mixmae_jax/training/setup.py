"""Set-up of a training run: all that it needs, built once from a configuration.

`pretrain.set_up` and `finetune.set_up` build it, from the dataset to the evaluator, and refuse what
cannot be built before anything is written; `trainer.run_training` trains it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, Protocol, Self

import jax
import numpy as np
import optax
from absl import logging
from ml_collections import ConfigDict

from sar_mixmae_jax.data.record_source import Source
from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.training.checkpoint import RetentionPolicy
from sar_mixmae_jax.training.config import make_optimizer, make_schedule
from sar_mixmae_jax.training.distributed import is_primary_process
from sar_mixmae_jax.training.optimizer import peak_learning_rate
from sar_mixmae_jax.training.run_description import RunDescription
from sar_mixmae_jax.training.train_step import Batch, LossFn, TrainState, init_state

MIN_PEAK_LEARNING_RATE = 2e-5
"""A short run with a lower peak learns nothing."""


class EvalResult(NamedTuple):
    """Result of an evaluation during training.

    Attributes:
      scalars: metrics by name.
      headline: the most important of them in words, for the title of the picture.
      draw: write the picture to a path under a title; None where there is none.
    """

    scalars: dict[str, float]
    headline: str
    draw: Callable[[Path, str], None] | None


class Evaluator(Protocol):
    """Evaluation of a model outside the train step.

    Attributes:
      picture: name of its picture in the workdir.
    """

    picture: str

    def evaluate(self, params: Any) -> EvalResult:
        """Evaluate replicated parameters; every process calls it."""
        ...

    def warn(self, scalars: dict[str, float]) -> None:
        """Warn of what the scalars before the first step show."""
        ...


@dataclasses.dataclass(frozen=True)
class RunSetup:
    """Everything that a training run is made of.

    Attributes:
      config: of the run, complete.
      title: model and dataset, for messages and figures.
      description: of the run, stored with it.
      source: training records.
      sampler: order of the records.
      schedule: learning rate by step.
      optimizer: of the parameters, with this schedule.
      retention: which checkpoints are kept.
      init_params: parameters from a key.
      load_weights: put the weights of a source checkpoint into a state before the first step; not
        called in a run that is resumed.
      loss_fn: what is minimised, over a microbatch.
      evaluator: run every `eval_every` steps.
      eval_every: steps between evaluations; None: an epoch.
      eval_at_start: evaluate before the first step too.
      train_ids: hashes of the ids that the model is trained on, pretraining included; stored in
        every checkpoint.
      images_per_record: 2 where a record is a pair of dates.
    """

    config: ConfigDict
    title: str
    description: RunDescription
    source: Source
    sampler: ShuffleSampler
    schedule: optax.Schedule
    optimizer: optax.GradientTransformation
    retention: RetentionPolicy
    init_params: Callable[[jax.Array], Any]
    load_weights: Callable[[TrainState], TrainState]
    loss_fn: LossFn
    evaluator: Evaluator
    eval_every: int | None
    eval_at_start: bool
    train_ids: str
    images_per_record: int = 1

    @property
    def total_steps(self) -> int:
        """Steps done at the end of the run."""
        return self.config.total_steps or self.sampler.steps(self.config.epochs)

    @property
    def num_microbatches(self) -> int:
        """Parts of a batch that have masks and partners of their own."""
        return jax.device_count() * self.config.grad_accum_steps

    def init_state(self) -> TrainState:
        """Return the state before the first step, with random parameters."""
        return init_state(self.init_params, self.optimizer, jax.random.key(self.config.seed))

    def with_sampler(self, sampler: ShuffleSampler) -> Self:
        """Return the same set-up for another order of the records, which the schedule follows."""
        if sampler == self.sampler:
            return self
        schedule = make_schedule(self.config, sampler)
        optimizer = make_optimizer(self.config, schedule)
        return dataclasses.replace(self, sampler=sampler, schedule=schedule, optimizer=optimizer)


def check_fit(prepare: Callable[[Batch, jax.Array], Any], source: Source) -> None:
    """Check that a record can be read and prepared for the model.

    Args:
      prepare: preprocessing of a batch, with a key.
      source: records.

    Raises:
      InputError: the record cannot be read, or its size does not fit.
    """
    batch = {
        name: jax.ShapeDtypeStruct((2, *np.shape(value)), value.dtype)
        for name, value in source[0].items()
        if name != "id"
    }
    jax.eval_shape(prepare, batch, jax.random.key(0))


def warn_of_low_learning_rate(config: ConfigDict) -> None:
    """Warn where the published base rate and a small batch give a rate too low to train with."""
    peak = peak_learning_rate(config.optimizer.base_learning_rate, config.batch_size)
    if peak < MIN_PEAK_LEARNING_RATE and is_primary_process():
        logging.warning(
            "the peak learning rate is %.1e: the published base rate of 1.5e-4 is for batches of "
            "256, and this batch is %d; raise --config.optimizer.base_learning_rate",
            peak,
            config.batch_size,
        )


def warn_of_zero_learning_rate(setup: RunSetup) -> None:
    """Warn where the schedule ends before the run does."""
    steps, sampler, config = setup.total_steps, setup.sampler, setup.config
    if is_primary_process() and steps > 1 and float(setup.schedule(steps - 1)) == 0:
        logging.warning(
            "the learning rate is 0 from epoch %g on, and %g are trained: a longer schedule is "
            "--config.schedule_epochs",
            config.schedule_epochs or sampler.progress(steps),
            sampler.progress(steps),
        )
