"""The model on the validation split while it is trained; the test split is for `evaluate` alone."""

from functools import partial
from pathlib import Path
from typing import Any

from sar_mixmae_jax.evaluation import KINDS, Metrics, Predictions
from sar_mixmae_jax.files import write_whole
from sar_mixmae_jax.journal import Look
from sar_mixmae_jax.labelled import Labelled, predictions
from sar_mixmae_jax.predict import Prediction
from sar_mixmae_jax.settled import Settled
from sar_mixmae_jax.tasks import scores
from sar_mixmae_jax.tuning import Tuning, outputs


class Validator:
    """Scores a model on a split; a `journal.Watcher`."""

    picture = "validation.png"

    def __init__(self, tuning: Tuning, split: Labelled, batch_size: int) -> None:
        """Takes the split.

        Args:
          tuning: model and task.
          split: for validation.
          batch_size: records at a time, of all devices.
        """
        self._split = split
        self._predict = Prediction(Settled(outputs, tuning), batch_size)

    def look(self, params: Any) -> Look:
        """The scores that are defined, and the mean loss."""
        made = self._predict(params, self._split.patches.source)
        predicted = predictions(self._split, made, {})
        kind = KINDS[predicted.task]
        found = kind.metrics(predicted)
        scalars, name = scores(predicted, found), kind.best
        value = scalars.get(f"validation/{name}")
        shown = "undefined" if value is None else f"{value:.3f}"
        headline = f"{name.replace('_', ' ')} {shown} on {len(self._split)} for validation"
        return Look(scalars, headline, partial(draw, predicted, found))

    def warn(self, scalars: dict[str, float]) -> None:
        """There is nothing to warn of."""


def draw(predicted: Predictions, found: Metrics, path: Path, title: str) -> None:
    """Writes the precision-recall curves."""
    figures = KINDS[predicted.task].figures(predicted, found, {}, title, None)
    write_whole(path, figures["precision_recall.png"]())
