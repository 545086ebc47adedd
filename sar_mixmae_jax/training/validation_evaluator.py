"""Evaluation of fine-tuning on the validation split."""

from functools import partial
from pathlib import Path
from typing import Any

from sar_mixmae_jax.evaluation.metrics import Metrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.tasks.base import Task
from sar_mixmae_jax.tasks.supervised import FinetuneObjective, predict_outputs
from sar_mixmae_jax.tasks.task_dataset import TaskDataset, make_predictions
from sar_mixmae_jax.training.batch_predictor import BatchPredictor
from sar_mixmae_jax.training.setup import EvalResult
from sar_mixmae_jax.utils.files import atomic_write
from sar_mixmae_jax.utils.jit import CacheablePartial


class ValidationEvaluator:
    """Evaluator of the metrics of a task on a split."""

    picture = "validation.png"

    def __init__(self, tuning: FinetuneObjective, split: TaskDataset, batch_size: int) -> None:
        """Prepare the evaluation.

        Args:
          tuning: model and task.
          split: for validation.
          batch_size: records at a time, of all devices.
        """
        self._split = split
        self._predict = BatchPredictor(CacheablePartial(predict_outputs, tuning), batch_size)

    def evaluate(self, params: Any) -> EvalResult:
        """Return the metrics that are defined, and the mean loss."""
        made = self._predict(params, self._split.patches.source)
        predicted = make_predictions(self._split, made, {})
        task = self._split.task
        metrics = task.metrics(predicted)
        scalars, name = task.validation_scalars(predicted, metrics), task.best_score
        value = scalars.get(f"validation/{name}")
        shown = "undefined" if value is None else f"{value:.3f}"
        headline = f"{name.replace('_', ' ')} {shown} on {len(self._split)} for validation"
        has_figures = bool(task.captions)
        draw = partial(draw_validation, task, predicted, metrics) if has_figures else None
        return EvalResult(scalars, headline, draw)

    def warn(self, scalars: dict[str, float]) -> None:
        """No-op."""


def draw_validation(
    task: Task, predictions: Predictions, metrics: Metrics, path: Path, title: str
) -> None:
    """Write the first figure of the task, the precision-recall curves."""
    figures = task.figures(predictions, metrics, {}, title)
    atomic_write(path, next(iter(figures.values()))())
