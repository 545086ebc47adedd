"""The kinds of predictions: what is checked, computed, drawn and compared of each, one entry each.

A kind has the name of its task, an entry of `tasks.TASKS`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_mixmae_jax.evaluation.bootstrap import BinaryProblem, Sampled
from sar_mixmae_jax.evaluation.metrics import Metrics, Scores, SummaryMetrics
from sar_mixmae_jax.tasks import flood, multilabel
from sar_mixmae_jax.tasks.flood_panels import PairPicture
from sar_mixmae_jax.utils.tables import Lines

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions


Path = tuple[str, ...]
Pictures = Callable[[int], PairPicture]
"""Gives the picture of a row by its number."""

Draw = dict[str, Callable[[], bytes]]
"""What draws a picture, by the name of its file."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of predictions.

    Attributes:
      exclusive: whether a row has exactly one of two classes, the number of which is its label;
        otherwise it has any number of them, each 0 or 1.
      classes: their names, where these are fixed.
      columns: what must be known of every row, besides its group.
      check: refuses rows that contradict themselves.
      metrics: of predictions, as reports have them.
      scores: reads the headline numbers from the metrics, each by its name.
      compared: of the scores, those by which models are compared, with their titles; by the first
        the best checkpoint is chosen.
      breakdowns: reads from the metrics what is shown in parts: by title and part.
      lead: the first numbers of a report, of the metrics and their intervals.
      questions: of predictions, their groups and the number of groups: what is resampled, by its
        path in the metrics.
      averages: of the resampled questions, by path: what is averaged over them.
      captions: of all pictures there can be, by the name of the file.
      headline: the beginning of a report, of the metrics and their intervals.
      tables: its tables.
      figures: its pictures; of predictions, metrics, intervals, a title, and what gives pictures of
        rows, or None.
    """

    exclusive: bool
    classes: tuple[str, ...] | None
    columns: tuple[str, ...]
    check: Callable[[Predictions], None]
    metrics: Callable[[Predictions], Metrics]
    scores: Scores
    compared: Mapping[str, str]
    breakdowns: Callable[[Metrics], dict[str, dict[str, float | None]]]
    lead: Callable[[Metrics, Mapping[str, Any]], SummaryMetrics]
    questions: Callable[[Predictions, np.ndarray, int], Iterator[tuple[Path, BinaryProblem]]]
    averages: Callable[[dict[Path, dict[str, Sampled]]], dict[Path, Sampled]]
    captions: Mapping[str, str]
    headline: Callable[[Metrics, Mapping[str, Any]], Lines]
    tables: Callable[[Metrics, Mapping[str, Any]], Lines]
    figures: Callable[[Predictions, Metrics, Mapping[str, Any], str, Pictures | None], Draw]

    @property
    def best(self) -> str:
        """The score by which the best checkpoint is chosen."""
        return next(iter(self.compared))

    def read_scores(self, metrics: Metrics) -> dict[str, float | None]:
        """The headline numbers by name; None where undefined."""
        return {name: read(metrics) for name, read in self.scores.items()}


KINDS = {
    "classification": Kind(
        exclusive=False,
        classes=None,
        columns=(),
        check=lambda predictions: None,
        metrics=multilabel.class_metrics,
        scores=multilabel.CLASS_SCORES,
        compared=multilabel.CLASS_COMPARED,
        breakdowns=multilabel.class_breakdowns,
        lead=multilabel.class_summary_metrics,
        questions=multilabel.class_problems,
        averages=multilabel.class_averages,
        captions=multilabel.CLASS_FIGURES,
        headline=multilabel.class_headline,
        tables=multilabel.class_tables,
        figures=multilabel.class_figures,
    ),
    "flood": Kind(
        exclusive=True,
        classes=("dry", "flood"),
        columns=flood.FLOOD_COLUMNS,
        check=flood.check_flood_predictions,
        metrics=flood.compute_metrics,
        scores=flood.FLOOD_SCORES,
        compared=flood.FLOOD_COMPARED,
        breakdowns=flood.flood_breakdowns,
        lead=flood.flood_summary_metrics,
        questions=flood.flood_problems,
        averages=lambda sampled: {},
        captions=flood.FLOOD_FIGURES,
        headline=flood.flood_headline,
        tables=flood.flood_tables,
        figures=flood.draw_figures,
    ),
}
"""The kinds by the name of their task."""
