"""Fine-tuning: `train(config, workdir)`, from an encoder and labelled records to a tuned model."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from sar_mixmae_jax.data.sampler import ShuffleSampler
from sar_mixmae_jax.evaluation.metrics import Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.registry import get_task
from sar_mixmae_jax.tasks.supervised import (
    FinetuneObjective,
    finetune_loss,
    init_model_params,
    predict_outputs,
)
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, make_predictions
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.config import (
    check_batch,
    make_optimizer,
    make_retention_policy,
    make_schedule,
)
from sar_mixmae_jax.training.downstream import (
    choose_bands,
    complete_config,
    describe_run,
    open_inputs,
    run_title,
)
from sar_mixmae_jax.training.encoder_loading import (
    replace_encoder,
    resolve_encoder,
)
from sar_mixmae_jax.training.setup import EvalResult, RunSetup
from sar_mixmae_jax.training.source_checkpoint import merge_train_ids
from sar_mixmae_jax.training.train_step import CacheablePartial, TrainState
from sar_mixmae_jax.training.trainer import RunResult, run_training
from sar_mixmae_jax.utils.files import atomic_write


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
      workdir: working directory of a run that is resumed, for the encoder that it began with.

    Raises:
      InputError: the dataset, model or optimizer cannot be built from the configuration.
    """
    task = get_task(config.task).configure(config)
    config = complete_config(config, task)
    check_batch(config, jax.device_count())
    config, source_checkpoint = choose_bands(config, resolve_encoder(config, workdir))
    inputs = open_inputs(config, task, source_checkpoint)
    training, objective = inputs.training, inputs.objective
    sampler = ShuffleSampler(len(training), config.batch_size, config.seed)
    schedule = make_schedule(config, sampler)

    def load(state: TrainState) -> TrainState:
        params = replace_encoder(
            state.params, objective.model.arch, source_checkpoint, config.bands
        )
        return dataclasses.replace(state, params=params)

    return RunSetup(
        config=config,
        title=f"{run_title(config, source_checkpoint)} on {training.patches.title}",
        description=describe_run(config, source_checkpoint, inputs, objective),
        source=training.patches.source,
        sampler=sampler,
        schedule=schedule,
        optimizer=make_optimizer(config, schedule),
        retention=make_retention_policy(config),
        init_params=partial(init_model_params, objective),
        load_weights=load,
        loss_fn=CacheablePartial(finetune_loss, objective),
        evaluator=NoEvaluator()
        if inputs.validation is None
        else ValidationEvaluator(
            objective, inputs.validation, max(config.batch_size, task.eval_batch_size)
        ),
        eval_every=config.validate_every,
        eval_at_start=False,
        train_ids=merge_train_ids(source_checkpoint, training.image_ids()),
        images_per_record=len(task.images),
        kernels=inputs.kernels,
    )


class NoEvaluator:
    """Evaluator of a run without validation."""

    picture = "validation.png"

    def evaluate(self, params: Any) -> EvalResult:
        """Return no metric."""
        del params
        return EvalResult({}, "no validation split, no best checkpoint", None)

    def warn(self, scalars: dict[str, float]) -> None:
        """Do nothing."""


class ValidationEvaluator:
    """Evaluator of the metrics of a task on a split."""

    picture = "validation.png"

    def __init__(self, objective: FinetuneObjective, split: TaskDataset, batch_size: int) -> None:
        """Prepare the evaluation.

        Args:
          objective: model and task.
          split: for validation.
          batch_size: records at a time, of all devices.
        """
        self._split = split
        self._predict = BatchPredictor(CacheablePartial(predict_outputs, objective), batch_size)

    def evaluate(self, params: Any) -> EvalResult:
        """Return the metrics that are defined, and the mean loss."""
        task = self._split.task
        outputs = self._predict(params, self._split.patches.source, leave_out=task.extra_arrays)
        predicted = make_predictions(self._split, outputs, {})
        metrics = task.metrics(predicted)
        scalars, name = task.validation_scalars(predicted, metrics), task.best_score
        value = scalars.get(f"validation/{name}")
        shown = "undefined" if value is None else f"{value:.3f}"
        scored = task.scored_records(predicted, metrics)
        headline = f"{name.replace('_', ' ')} {shown} on {scored} for validation"
        has_figures = bool(task.captions)
        draw = partial(draw_validation, task, predicted, metrics) if has_figures else None
        return EvalResult(scalars, headline, draw)

    def warn(self, scalars: dict[str, float]) -> None:
        """Do nothing: validation has no warnings."""


def draw_validation(
    task: Task, predictions: Predictions, metrics: Metrics, path: Path, title: str
) -> None:
    """Write the first figure of the task, the precision-recall curves."""
    figures = task.figures(predictions, metrics, {}, title)
    atomic_write(path, next(iter(figures.values()))())
