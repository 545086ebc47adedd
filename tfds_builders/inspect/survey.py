"""One pass over records: what is added up. Memory grows by some 30 bytes a patch, for its place.

Batches of records become sums: `Moments`, a histogram of fixed bins, counts of labels, months and
countries. Nothing is kept of an image.
"""

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tfds_builders.band_statistics import BandMoments
from tfds_builders.units import PLAUSIBLE_DB

FEATURES = ("id", "backscatter", "labels", "time", "crs", "transform", "country")
"""Those of a record that are looked at."""

BINS_PER_DB = 8
"""A power of two, so that the steps of float16 fall evenly into bins."""

LOW, HIGH = PLAUSIBLE_DB
EDGES = np.arange(LOW * BINS_PER_DB, HIGH * BINS_PER_DB + 1) / BINS_PER_DB
"""Of the bins, dB; what is outside is counted below and above."""


@dataclasses.dataclass
class Survey:
    """What was added up over patches.

    Attributes:
      records: how many patches.
      moments: of every band.
      histogram: (band, 1 + bins + 1) pixels: below `EDGES`, between them, above.
      lowest: (band,) dB.
      highest: (band,) dB.
      together: (class, class) patches that have both labels; the diagonal counts each label.
      unlabelled: patches without any label.
      months: patches of every month, "2017-06"; "" where unknown.
      first: earliest acquisition, ISO 8601, or "".
      last: latest acquisition, or "".
      countries: patches of every country.
      centres: by CRS, x and y of patch centres in turn, in its units.
      unplaced: patches that do not say where they lie.
      ids: a 64-bit hash of every id.
    """

    records: int
    moments: BandMoments
    histogram: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    together: np.ndarray
    unlabelled: int = 0
    months: Counter[str] = dataclasses.field(default_factory=Counter)
    first: str = ""
    last: str = ""
    countries: Counter[str] = dataclasses.field(default_factory=Counter)
    centres: dict[str, array] = dataclasses.field(default_factory=dict)
    unplaced: int = 0
    ids: array = dataclasses.field(default_factory=lambda: array("q"))

    @property
    def outside(self) -> np.ndarray:
        """(band, 2) pixels below and above the histogram."""
        return self.histogram[:, [0, -1]]


def survey(batches: Iterable[Sequence[dict[str, Any]]], bands: int, classes: int) -> Survey:
    """Adds up records.

    Args:
      batches: of records with `FEATURES`, as far as they have them.
      bands: of the backscatter.
      classes: of the labels; 0: there are none.
    """
    found = Survey(
        records=0,
        moments=BandMoments.zeros(bands),
        histogram=np.zeros((bands, len(EDGES) + 1), np.int64),
        lowest=np.full(bands, np.inf),
        highest=np.full(bands, -np.inf),
        together=np.zeros((classes, classes), np.int64),
    )
    for records in batches:
        found.records += len(records)
        _add_backscatter(found, [record["backscatter"] for record in records])
        found.ids.extend(hash(record["id"]) for record in records)
        if classes:
            _add_labels(found, np.stack([record["labels"] for record in records]))
        if "time" in records[0]:
            _add_times(found, [record["time"].decode() for record in records])
        if "country" in records[0]:
            found.countries.update(record["country"].decode() for record in records)
        if "transform" in records[0]:
            for record in records:
                _add_place(found, record)
    return found


def percentiles(found: Survey, band: int, shares: Sequence[float]) -> np.ndarray:
    """Percentiles of a band in dB, exact to a bin; NaN where nothing was measured.

    Args:
      found: the sums.
      band: its number.
      shares: in per cent.
    """
    cumulated = np.concatenate([[0], np.cumsum(found.histogram[band])])
    if not cumulated[-1]:
        return np.full(len(shares), np.nan)
    low, high = found.lowest[band], found.highest[band]
    edges = np.concatenate([[min(low, LOW)], EDGES, [max(high, HIGH)]])
    values = np.interp(np.array(shares) / 100 * cumulated[-1], cumulated, edges)
    return np.clip(values, low, high)


def _add_backscatter(found: Survey, patches: Sequence[np.ndarray]) -> None:
    """Adds (row, column, band) arrays in dB, of one size."""
    rows, columns, bands = patches[0].shape
    by_band = np.empty((bands, len(patches), rows * columns), np.float32)
    for number, patch in enumerate(patches):
        by_band[:, number] = patch.reshape(-1, bands).T
    found.moments += BandMoments.from_patches(np.stack(patches))
    for band, values in enumerate(by_band):
        nodata = ~np.isfinite(values)
        np.copyto(values, np.inf, where=nodata)
        found.lowest[band] = min(found.lowest[band], values.min())
        np.copyto(values, -np.inf, where=nodata)
        found.highest[band] = max(found.highest[band], values.max())
        found.histogram[band] += _histogram(values)
        found.histogram[band, 0] -= np.count_nonzero(nodata)


def _histogram(values: np.ndarray) -> np.ndarray:
    """(1 + bins + 1,) values below `EDGES`, between them, above; -inf is below."""
    bins = values * np.float32(BINS_PER_DB)
    bins += np.float32(1 - LOW * BINS_PER_DB)
    np.clip(bins, 0, len(EDGES), out=bins)
    return np.bincount(bins.ravel().astype(np.intp), minlength=len(EDGES) + 1)


def _add_labels(found: Survey, labels: np.ndarray) -> None:
    labels = labels.astype(np.int64)
    found.together += labels.T @ labels
    found.unlabelled += int((labels.sum(1) == 0).sum())


def _add_times(found: Survey, times: list[str]) -> None:
    found.months.update(time[:7] for time in times)
    known = [time for time in times if time]  # ISO 8601 sorts as time does
    if known:
        found.first = min([*filter(None, [found.first]), *known])
        found.last = max(found.last, *known)


def _add_place(found: Survey, record: dict[str, Any]) -> None:
    crs, (a, b, c, d, e, f) = record["crs"].decode(), record["transform"]
    rows, columns = record["backscatter"].shape[:2]
    x, y = a * columns / 2 + b * rows / 2 + c, d * columns / 2 + e * rows / 2 + f
    if crs and np.isfinite([x, y]).all():
        found.centres.setdefault(crs, array("d")).extend((x, y))
    else:
        found.unplaced += 1
