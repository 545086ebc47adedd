"""From the sums over a dataset to a report with pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.files import write_whole
from tfds_builders.inspect import contact_sheet, figures, report
from tfds_builders.inspect.findings import Findings
from tfds_builders.inspect.places import Places, distances, locate
from tfds_builders.inspect.reading import Dataset, read, spread
from tfds_builders.inspect.survey import Survey, percentiles
from tfds_builders.inspect.weight_table import Row, weight_table

TRAIN = "train"
WEIGHED, SHOWN = 256, 24
"""Patches on which weightings are tried, and that are drawn."""


def write(dataset: Dataset, surveys: Mapping[str, Survey], out: Path, *, whole: bool) -> list[Path]:
    """Writes pictures and report.

    Args:
      dataset: which.
      surveys: of its splits.
      out: folder to write into.
      whole: whether every record of the splits was read.

    Returns:
      The paths of the files, the report first.

    Raises:
      InputError: a record cannot be read, or a file cannot be written.
    """
    mean, std = dataset.statistics["mean"], dataset.statistics["std"]
    places = {}
    if "transform" in dataset.features:
        places = {name: locate(one.centres, one.unplaced) for name, one in surveys.items()}
    pictures = {
        "histograms": figures.histograms(surveys, dataset.bands, mean, std, dataset.title),
        "contact_sheet": _sheet(dataset, surveys),
    }
    if dataset.classes:
        pictures["labels"] = figures.labels(surveys, dataset.classes, dataset.title)
    if any(len(one.degrees) for one in places.values()):
        pictures["map"] = figures.places(places, dataset.title)
    weights, sample = _weights(dataset, list(surveys), mean, std)
    text = report.write(
        Findings(
            dataset=dataset,
            surveys=surveys,
            whole=whole,
            mean=mean,
            std=std,
            weights=weights,
            sample=sample,
            places=places,
            nearest=_nearest(places),
            pictures={name: f"{name}.png" for name in pictures},
        )
    )
    contents = {"report.md": text.encode()}
    contents |= {f"{name}.png": picture for name, picture in pictures.items()}
    try:
        for file, content in contents.items():
            write_whole(out / file, content)
    except OSError as error:
        raise InputError(
            f"--out {out} cannot be written ({first_line(error)}): choose another folder"
        ) from error
    return [out / file for file in contents]


def _weights(
    dataset: Dataset, splits: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> tuple[list[Row], str]:
    """The table of weightings, and on what it was made."""
    split = TRAIN if TRAIN in splits else splits[0]
    indices = spread(dataset.records[split], WEIGHED)
    patches = (
        record["backscatter"]
        for batch in read(dataset, split, indices, ("backscatter",))
        for record in batch
    )
    sample = f"{len(indices)} patches spread over the split {split}"
    return weight_table(patches, mean, std), sample


def _sheet(dataset: Dataset, surveys: Mapping[str, Survey]) -> bytes:
    """Patches spread over the splits, as many of each as of the others."""
    shown = []
    for split in surveys:
        indices = spread(dataset.records[split], -(-SHOWN // len(surveys)))
        for batch in read(dataset, split, indices, ("id", "backscatter")):
            for record in batch:
                caption = f"{record['id'].decode()} ({split})"
                shown.append(contact_sheet.Shown(caption, record["backscatter"]))
    scales = [_scale(surveys, band) for band in range(len(dataset.bands))]
    return contact_sheet.contact_sheet(shown, dataset.bands, scales, dataset.title)


def _scale(surveys: Mapping[str, Survey], band: int) -> tuple[float, float]:
    """From the lowest 1st to the highest 99th percentile of any split, dB."""
    ends = np.array([percentiles(one, band, (1, 99)) for one in surveys.values()])
    if not np.isfinite(ends).any():
        return 0.0, 1.0
    return float(np.nanmin(ends)), float(np.nanmax(ends)) + 1e-3


def _nearest(places: Mapping[str, Places]) -> dict[str, np.ndarray]:
    """Distance from the patches of other splits to the nearest of `train`, km."""
    if TRAIN not in places or not len(places[TRAIN].degrees):
        return {}
    return {
        split: distances(one, places[TRAIN])
        for split, one in places.items()
        if split != TRAIN and len(one.degrees)
    }
