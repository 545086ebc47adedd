"""Typed results of an inspection, before they are written as a report."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfds_builders.inspect import backscatter as backscatter
from tfds_builders.inspect.dataset import Dataset
from tfds_builders.inspect.geolocation import Places
from tfds_builders.inspect.loss_weights import Row
from tfds_builders.inspect.survey import Survey


@dataclasses.dataclass(frozen=True)
class Findings:
    """What was found out about a dataset.

    Attributes:
      dataset: which.
      surveys: by split.
      whole: whether every record of these splits was read.
      mean: with which training standardises, dB; NaN where metadata have none.
      std: the same.
      weights: of the weightings.
      sample: of which patches.
      places: by split; none: the records do not say where they lie.
      nearest: by split, km from each patch to the nearest patch of the split `train`.
      pictures: file names by what they show.
    """

    dataset: Dataset
    surveys: Mapping[str, Survey]
    whole: bool
    mean: Sequence[float]
    std: Sequence[float]
    weights: Sequence[Row]
    sample: str
    places: Mapping[str, Places]
    nearest: Mapping[str, np.ndarray]
    pictures: Mapping[str, str]
