"""Baselines of a segmentation without a network, from the backscatter of single pixels."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from sklearn.linear_model import LogisticRegression

from sar_mixmae_jax.data.patch_dataset import PatchDataset, batches
from sar_mixmae_jax.data.record_source import Subset
from sar_mixmae_jax.data.sampler import SequentialSampler
from sar_mixmae_jax.evaluation.confusion import otsu_cut
from sar_mixmae_jax.objectives.radiometry import TO_DB
from sar_mixmae_jax.utils.errors import InputError

THRESHOLDS_DB = {"vh_threshold": ("VH", -23.6), "vv_threshold": ("VV", -13.45)}
"""Band and level in dB below which a pixel is water, as published for Sen1Floods11."""

BASELINES = {
    **{name: f"{band} < {level:g} dB" for name, (band, level) in THRESHOLDS_DB.items()},
    "otsu": "Otsu on VH, by record",
    "logistic": "logistic regression on the bands",
}
"""Titles by the name of the array of confusion matrices."""

OTSU_EDGES_DB = np.linspace(-50.0, 10.0, 601)
FIT_RECORDS, FIT_PIXELS = 64, 200_000
"""Maximum numbers of training records and of their pixels that the regression is fitted to."""


class Pixels(NamedTuple):
    """Backscatter and labels of a record.

    Attributes:
      db: (pixels, band) dB, of the last date.
      labels: (pixels,) int, -1 where not labelled.
      measured: (pixels,) bool, True where all bands of all dates were measured.
    """

    db: np.ndarray
    labels: np.ndarray
    measured: np.ndarray


def baseline_confusions(
    dataset: PatchDataset,
    training: Callable[[], tuple[PatchDataset, str]],
    images: Sequence[str],
    label_field: str,
    classes: Sequence[str],
) -> dict[str, np.ndarray]:
    """Return confusion matrices of the labelled and measured pixels of every record.

    Args:
      dataset: records to predict.
      training: opens the records that the regression is fitted to, and names their labels.
      images: names of the fields with the images of a record, the last date at the end.
      label_field: name of the field with the labels to compare with.
      classes: names of the classes; thresholds need two, the second of them water.

    Returns:
      (records, classes, classes) int64 by a name of `BASELINES`, of those that are defined.
    """
    names = []
    if tuple(classes[1:]) == ("water",):
        names += [name for name, (band, _) in THRESHOLDS_DB.items() if band in dataset.bands]
        names += ["otsu"] if "VH" in dataset.bands else []
    model = _fit_logistic(training, images)
    names += ["logistic"] if model is not None else []
    matrices: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for pixels in _read_pixels(dataset, images, label_field):
        counted = (pixels.labels >= 0) & pixels.measured
        db, truth = pixels.db[counted], pixels.labels[counted]
        for name in names:
            if name == "logistic":
                assert model is not None
                predicted = model.predict(db) if len(db) else truth
            else:
                band, level = THRESHOLDS_DB.get(name, ("VH", None))
                column = dataset.bands.index(band)
                if level is None:
                    level = _otsu_level(pixels.db[pixels.measured, column])
                predicted = (db[:, column] < level).astype(np.int64)
            flat = np.bincount(truth * len(classes) + predicted, minlength=len(classes) ** 2)
            matrices[name].append(flat.reshape(len(classes), -1))
    return {name: np.stack(parts) for name, parts in matrices.items()}


def _otsu_level(db: np.ndarray) -> float:
    """Return Otsu's threshold of measured pixels, labelled or not; NaN without any."""
    counts, _ = np.histogram(db, OTSU_EDGES_DB)
    return otsu_cut(counts, OTSU_EDGES_DB) if counts.any() else np.nan


def _fit_logistic(
    training: Callable[[], tuple[PatchDataset, str]], images: Sequence[str]
) -> LogisticRegression | None:
    """Return a regression on pixels of training records; None where it cannot be fitted."""
    try:
        dataset, label_field = training()
    except InputError as error:
        logging.warning("no logistic regression as a baseline: %s", error)
        return None
    count = len(dataset.source)
    rows = np.unique(np.linspace(0, count - 1, min(count, FIT_RECORDS)).astype(int))
    rng, values, truth = np.random.default_rng(0), [], []
    for pixels in _read_pixels(dataset, images, label_field, rows):
        usable = np.flatnonzero((pixels.labels >= 0) & pixels.measured)
        chosen = rng.permutation(usable)[: FIT_PIXELS // len(rows)]
        values.append(pixels.db[chosen])
        truth.append(pixels.labels[chosen])
    labels = np.concatenate(truth)
    if len(np.unique(labels)) < 2:
        logging.warning("no logistic regression as a baseline: %s has one class", dataset.name)
        return None
    return LogisticRegression(max_iter=200).fit(np.concatenate(values), labels)


def _read_pixels(
    dataset: PatchDataset,
    images: Sequence[str],
    label_field: str,
    rows: np.ndarray | None = None,
) -> Iterator[Pixels]:
    """Yield the pixels of records, of those with some numbers or of all."""
    source = dataset.source if rows is None else Subset(dataset.source, rows)
    sampler = SequentialSampler(len(source), 1)
    to_db = TO_DB[dataset.unit]
    for batch in batches(source, sampler, 0, sampler.steps):
        dates = [
            np.asarray(to_db(batch[name][0])).reshape(-1, len(dataset.bands)) for name in images
        ]
        measured = np.all([np.isfinite(date).all(-1) for date in dates], axis=0)
        yield Pixels(dates[-1], batch[label_field][0].reshape(-1).astype(np.int64), measured)
