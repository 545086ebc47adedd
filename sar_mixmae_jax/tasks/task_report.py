"""Metrics, confidence intervals and report of a task, from predictions alone."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np

from sar_mixmae_jax.evaluation import bootstrap
from sar_mixmae_jax.evaluation.bootstrap import BinaryProblem, Path, Sampled
from sar_mixmae_jax.evaluation.metrics import Metrics, SummaryMetrics
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import Lines

Pictures = Callable[[int], Any]
"""Row number -> picture of that record, in the form that `Task.figures` draws."""

Figures = dict[str, Callable[[], bytes]]
"""File name -> function that draws the figure and returns the bytes of a PNG."""


class TaskReport(abc.ABC):
    """Metrics and report of a downstream task; `Task` adds records, model and loss.

    Attributes:
      name: str, the value of `config.task`.
      exclusive: whether a record has exactly one class, so that pooled labels are (batch,) class
        numbers; otherwise they are (batch, classes), 0 or 1.
      fixed_classes: names of the classes where the task defines them; () where the dataset does.
      required_columns: names of the columns of `Predictions` besides "group".
      score_names: names of all entries of `scores`.
      score_titles: score name -> title, of the scores by which models are compared; the best
        checkpoint is chosen by the first.
      captions: file name -> caption, of all figures that a report may hold.
    """

    name: ClassVar[str]
    exclusive: ClassVar[bool]
    fixed_classes: ClassVar[tuple[str, ...]] = ()
    required_columns: ClassVar[tuple[str, ...]] = ()
    score_names: ClassVar[tuple[str, ...]]
    score_titles: ClassVar[Mapping[str, str]]
    captions: ClassVar[Mapping[str, str]] = {}

    @property
    def best_score(self) -> str:
        """Name of the score by which the best checkpoint is chosen."""
        return next(iter(self.score_titles))

    # ---- metrics

    def check_predictions(self, predictions: Predictions) -> None:
        """Check predictions against this task.

        Raises:
          InputError: classes, label shape or columns are not those of the task.
        """
        classes, labels = predictions.classes, predictions.labels
        if self.fixed_classes not in ((), classes):
            raise InputError(
                f"classes are {classes}, expected {self.fixed_classes} for {self.name}: evaluate a "
                "model of this task"
            )
        rows = (len(predictions.ids),)
        expected = rows if self.exclusive else (*rows, len(classes))
        if labels.shape != expected:
            raise InputError(
                f"labels are {labels.dtype} of shape {labels.shape}, expected numbers {expected}: "
                f"{len(predictions.ids)} ids, {len(classes)} classes"
            )
        missing = [name for name in self.required_columns if name not in predictions.columns]
        if missing:
            raise InputError(
                f"columns lack {', '.join(missing)}: found {sorted(predictions.columns)}"
            )

    @abc.abstractmethod
    def metrics(self, predictions: Predictions) -> Metrics:
        """Return all metrics of predictions as nested values, None where undefined."""

    @abc.abstractmethod
    def scores(self, metrics: Metrics) -> dict[str, float | None]:
        """Return the values of `score_names`; None where undefined.

        Args:
          metrics: of `metrics`.
        """

    def breakdowns(self, metrics: Metrics) -> dict[str, dict[str, float | None]]:
        """Return values of parts of the records or classes, by title and part.

        Args:
          metrics: of `metrics`.
        """
        del metrics
        return {}

    # ---- confidence intervals

    def bootstrap_targets(self, predictions: Predictions) -> dict[Path, BinaryProblem]:
        """Return the binary problems that are resampled, by the path of their metrics."""
        del predictions
        return {}

    def macro_averages(
        self, replicates: Mapping[Path, Mapping[str, Sampled]]
    ) -> dict[Path, Sampled]:
        """Return values derived from several binary problems, in each replicate.

        Args:
          replicates: rates of the problems of `bootstrap_targets` in each replicate, by path.

        Returns:
          Values by the path of their metric.
        """
        del replicates
        return {}

    def intervals(
        self, predictions: Predictions, replicates: int | None = None, seed: int = 0
    ) -> dict[str, Any]:
        """Return confidence intervals of the metrics; see `bootstrap.intervals`.

        Args:
          predictions: whose column "group" names what is independent.
          replicates: number of resamples; None: by `bootstrap.replicates_for`.
          seed: random seed of the resampling.
        """
        targets = self.bootstrap_targets(predictions)
        count = predictions.number_of_groups
        return bootstrap.intervals(targets, count, self.macro_averages, replicates, seed)

    # ---- report

    @abc.abstractmethod
    def summary_metrics(self, metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
        """Return the main metrics with their intervals.

        Args:
          metrics: of `metrics`.
          intervals: `values` of `intervals`.
        """

    @abc.abstractmethod
    def report_header(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return the Markdown lines of the main result."""

    def tables(self, metrics: Metrics, intervals: Mapping[str, Any]) -> Lines:
        """Return the Markdown lines of the detailed tables."""
        del metrics, intervals
        return []

    def figures(
        self,
        predictions: Predictions,
        metrics: Metrics,
        intervals: Mapping[str, Any],
        title: str,
        pictures: Pictures | None = None,
    ) -> Figures:
        """Return the figures of a report, the one for the training log first.

        Args:
          predictions: to show.
          metrics: of `metrics`.
          intervals: `values` of `intervals`; {} where there are none.
          title: title of the figures.
          pictures: of `example_pictures`.
        """
        del predictions, metrics, intervals, title, pictures
        return {}

    def example_pictures(
        self, dataset: str, data_dir: str, split: str, extra: Mapping[str, np.ndarray]
    ) -> Pictures | None:
        """Return a function that reads the picture of a record; None where there are none.

        Args:
          dataset: name of the dataset.
          data_dir: folder with the built datasets.
          split: split of the dataset.
          extra: (records, …) arrays of `extra_outputs`.
        """
        del dataset, data_dir, split, extra
        return None
