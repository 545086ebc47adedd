"""Measurements of a dataset: everything that figures and report are made from."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sar_mixmae_jax.objectives.diagnostics import Contrast, contrast, flat_fraction
from sar_mixmae_jax.objectives.preprocess import Preprocessing, preprocess
from sar_mixmae_jax.objectives.weighting import WEIGHTINGS, Weighting
from tfds_builders.inspect.dataset import Dataset, read, stratified_rows
from tfds_builders.inspect.survey import Places, Survey, distances, locate

TRAIN = "train"

WEIGHTED_PATCHES = 256
"""Patches on which the weightings of the loss are compared."""


class WeightContrast(NamedTuple):
    """Contrast of the weights of a weighting.

    Attributes:
      name: an entry of `WEIGHTINGS`, with the settings that are not the defaults.
      domain: domain in which power is computed, "physical" or "standardised".
      cv: (band,) median over patches of the coefficient of variation of the weights.
      dark_bright: (band,) median ratio of the mean weights in the darkest and brightest decile.
      flat: (band,) share of patches whose weights are nearly constant.
    """

    name: str
    domain: str
    cv: list[float]
    dark_bright: list[float]
    flat: list[float]


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
    indices = stratified_rows(dataset.records[split], WEIGHTED_PATCHES)
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


IMAGE_SIZE = 128
"""Input side of the default pretraining, to which patches are resized, pixels."""

CHUNK = 32
"""Patches per call of the compiled function."""


def weight_contrasts(
    patches: Iterable[np.ndarray], mean: Sequence[float], std: Sequence[float]
) -> list[WeightContrast]:
    """Compute the contrast of the loss weights for all weightings.

    Args:
      patches: (row, column, band) backscatter in dB, all of one size.
      mean: (band,) mean with which training standardises, dB.
      std: (band,) standard deviation, dB; unless all are finite and positive, the standardised
        domain is left out.
    """
    weightings = [Weighting(name, "physical") for name in WEIGHTINGS]
    weightings.append(Weighting("per_channel", "physical", clip=(1.0, 99.0)))  # robust forms
    weightings.append(Weighting("per_channel", "physical", power_domain="db", clip=(1.0, 99.0)))
    if np.isfinite([mean, std]).all() and (np.array(std) > 0).all():
        weightings.append(Weighting("per_channel", "standardised"))  # the default
        weightings.append(Weighting("shared_average", "standardised"))
    else:
        mean, std = [0.0] * len(mean), [1.0] * len(std)  # the physical domain does not use them
    settings = [
        Preprocessing(IMAGE_SIZE, tuple(mean), tuple(std), weighting, random_flip=False)
        for weighting in weightings
    ]

    @jax.jit
    def contrasts(db: jax.Array) -> list[Contrast]:
        return [contrast(preprocess(db, jax.random.key(0), each)) for each in settings]

    chunks = [contrasts(jnp.asarray(chunk, jnp.float32)) for chunk in _chunks(patches)]
    rows = []
    for number, weighting in enumerate(weightings):
        cv = jnp.concatenate([chunk[number].cv for chunk in chunks])
        dark_bright = jnp.concatenate([chunk[number].dark_bright for chunk in chunks])
        rows.append(
            WeightContrast(
                _title(weighting),
                weighting.domain,
                jnp.nanmedian(cv, 0).tolist(),
                jnp.nanmedian(dark_bright, 0).tolist(),
                flat_fraction(cv).tolist(),
            )
        )
    return rows


def _title(weighting: Weighting) -> str:
    """Return the name of a weighting with the settings that are not the defaults."""
    clip = f", clip={weighting.clip}" if weighting.clip else ""
    domain = f", power_domain={weighting.power_domain}" if weighting.power_domain == "db" else ""
    return f"{weighting.name}{domain}{clip}"


def _chunks(patches: Iterable[np.ndarray]) -> Iterable[np.ndarray]:
    """Yield (chunk, row, column, band) arrays."""
    chunk: list[np.ndarray] = []
    for patch in patches:
        chunk.append(patch)
        if len(chunk) == CHUNK:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)
