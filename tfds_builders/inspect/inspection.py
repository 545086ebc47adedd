"""Measurements of a dataset: everything that figures and report are made from."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from tfds_builders.inspect.dataset import Dataset, read, spread
from tfds_builders.inspect.geolocation import Places, distances, locate
from tfds_builders.inspect.loss_weights import WeightContrast, weight_contrasts
from tfds_builders.inspect.survey import Survey

TRAIN = "train"

WEIGHTED_PATCHES = 256
"""Patches on which the weightings of the loss are compared."""


@dataclasses.dataclass(frozen=True)
class Inspection:
    """Measurements of a dataset.

    Attributes:
      dataset: the dataset.
      surveys: sums over the records, by split.
      complete: True if every record of these splits was read.
      mean: (band,) mean with which training standardises, dB; NaN where the metadata have none.
      std: (band,) standard deviation with which training standardises, dB.
      weights: contrast of the loss weights, one entry per weighting.
      sample: description of the patches that `weights` were measured on.
      places: patch centres by split; empty if the records have no coordinates.
      nearest: (patch,) distance in km from each patch to the nearest of `train`, by split.
    """

    dataset: Dataset
    surveys: Mapping[str, Survey]
    complete: bool
    mean: Sequence[float]
    std: Sequence[float]
    weights: Sequence[WeightContrast]
    sample: str
    places: Mapping[str, Places]
    nearest: Mapping[str, np.ndarray]

    @property
    def has_map(self) -> bool:
        """True if the place of at least one patch is known."""
        return any(len(places.degrees) for places in self.places.values())


def inspect_dataset(
    dataset: Dataset, surveys: Mapping[str, Survey], *, complete: bool
) -> Inspection:
    """Measure a dataset beyond the sums of its surveys.

    Args:
      dataset: the dataset.
      surveys: by split.
      complete: True if every record of these splits was read.

    Raises:
      InputError: a record cannot be read.
    """
    mean, std = dataset.statistics["mean"], dataset.statistics["std"]
    split = TRAIN if TRAIN in surveys else next(iter(surveys))
    indices = spread(dataset.records[split], WEIGHTED_PATCHES)
    patches = (
        record["backscatter"]
        for batch in read(dataset, split, indices, ("backscatter",))
        for record in batch
    )
    places = {}
    if "transform" in dataset.features:
        places = {name: locate(survey.centres, survey.unplaced) for name, survey in surveys.items()}
    return Inspection(
        dataset=dataset,
        surveys=surveys,
        complete=complete,
        mean=mean,
        std=std,
        weights=weight_contrasts(patches, mean, std),
        sample=f"{len(indices)} patches spread over the split {split}",
        places=places,
        nearest=_distances_to_train(places),
    )


def _distances_to_train(places: Mapping[str, Places]) -> dict[str, np.ndarray]:
    """Return (patch,) km from the patches of the other splits to the nearest of `train`."""
    if TRAIN not in places or not len(places[TRAIN].degrees):
        return {}
    return {
        split: distances(centres, places[TRAIN])
        for split, centres in places.items()
        if split != TRAIN and len(centres.degrees)
    }
