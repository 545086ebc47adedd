"""Sums over the records of a split in one pass.

Batches of records become band moments, histograms of fixed bins, and counts of labels, months and
countries. No image is kept; memory grows by about 30 bytes a patch, for its place and id.
"""

import dataclasses
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rasterio._err import CPLE_AppDefinedError, CPLE_BaseError  # `transform` raises them
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform
from scipy.spatial import cKDTree

from tfds_builders.band_statistics import BandMoments
from tfds_builders.units import PLAUSIBLE_DB

FEATURES = ("id", "backscatter", "labels", "time", "crs", "transform", "country")
"""Features that `survey` reads."""

BINS_PER_DB = 8
"""Power of two, so that the steps of float16 coincide with edges of bins."""

LOW, HIGH = PLAUSIBLE_DB
EDGES = np.arange(LOW * BINS_PER_DB, HIGH * BINS_PER_DB + 1) / BINS_PER_DB
"""Edges of the bins, dB; values outside are counted below and above."""

MAX_COORDINATE = 1e9
"""Larger coordinates count as unplaced: PROJ may take very long to wrap them."""


@dataclasses.dataclass
class Survey:
    """Sums over patches.

    Attributes:
      records: number of patches.
      moments: sums for mean and standard deviation of every band.
      histogram: (band, 1 + bins + 1) pixels below `EDGES`, in its bins, and above.
      lowest: (band,) minimum, dB.
      highest: (band,) maximum, dB.
      cooccurrence: (class, class) patches that have both labels; the diagonal counts each label.
      unlabelled: number of patches without any label.
      months: number of patches by month such as "2017-06"; "" where unknown.
      first: earliest acquisition, ISO 8601, or "".
      last: latest acquisition, ISO 8601, or "".
      countries: number of patches by country.
      centres: x and y of patch centres in turn, in units of the CRS, by CRS.
      unplaced: number of patches without coordinates.
      ids: 64-bit hash of every id.
    """

    records: int
    moments: BandMoments
    histogram: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    cooccurrence: np.ndarray
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
    """Add up records.

    Args:
      batches: batches of records with `FEATURES`, as far as the dataset has them.
      bands: number of bands.
      classes: number of classes of the labels; 0 if there are none.
    """
    sums = Survey(
        records=0,
        moments=BandMoments.zeros(bands),
        histogram=np.zeros((bands, len(EDGES) + 1), np.int64),
        lowest=np.full(bands, np.inf),
        highest=np.full(bands, -np.inf),
        cooccurrence=np.zeros((classes, classes), np.int64),
    )
    for records in batches:
        sums.records += len(records)
        _add_backscatter(sums, [record["backscatter"] for record in records])
        sums.ids.extend(hash(record["id"]) for record in records)
        if classes:
            _add_labels(sums, np.stack([record["labels"] for record in records]))
        if "time" in records[0]:
            _add_times(sums, [record["time"].decode() for record in records])
        if "country" in records[0]:
            sums.countries.update(record["country"].decode() for record in records)
        if "transform" in records[0]:
            for record in records:
                _add_place(sums, record)
    return sums


def percentiles(sums: Survey, band: int, percents: Sequence[float]) -> np.ndarray:
    """Return percentiles of a band in dB, exact to a bin; NaN where no pixel is valid.

    Args:
      sums: see `Survey`.
      band: number of the band.
      percents: percentages, 0 to 100.
    """
    cumulated = np.concatenate([[0], np.cumsum(sums.histogram[band])])
    if not cumulated[-1]:
        return np.full(len(percents), np.nan)
    low, high = sums.lowest[band], sums.highest[band]
    edges = np.concatenate([[min(low, LOW)], EDGES, [max(high, HIGH)]])
    values = np.interp(np.array(percents) / 100 * cumulated[-1], cumulated, edges)
    return np.clip(values, low, high)


def _add_backscatter(sums: Survey, patches: Sequence[np.ndarray]) -> None:
    """Add (row, column, band) arrays in dB, all of one size."""
    rows, columns, bands = patches[0].shape
    by_band = np.empty((bands, len(patches), rows * columns), np.float32)
    for number, patch in enumerate(patches):
        by_band[:, number] = patch.reshape(-1, bands).T
    sums.moments += BandMoments.from_patches(np.stack(patches))
    for band, values in enumerate(by_band):
        nodata = ~np.isfinite(values)
        np.copyto(values, np.inf, where=nodata)
        sums.lowest[band] = min(sums.lowest[band], values.min())
        np.copyto(values, -np.inf, where=nodata)
        sums.highest[band] = max(sums.highest[band], values.max())
        sums.histogram[band] += _histogram(values)
        sums.histogram[band, 0] -= np.count_nonzero(nodata)


def _histogram(values: np.ndarray) -> np.ndarray:
    """Return (1 + bins + 1,) counts below `EDGES`, in its bins, and above; -inf is below."""
    bins = values * np.float32(BINS_PER_DB)
    bins += np.float32(1 - LOW * BINS_PER_DB)
    np.clip(bins, 0, len(EDGES), out=bins)
    return np.bincount(bins.ravel().astype(np.intp), minlength=len(EDGES) + 1)


def _add_labels(sums: Survey, labels: np.ndarray) -> None:
    labels = labels.astype(np.int64)
    sums.cooccurrence += labels.T @ labels
    sums.unlabelled += int((labels.sum(1) == 0).sum())


def _add_times(sums: Survey, times: list[str]) -> None:
    sums.months.update(time[:7] for time in times)
    known = [time for time in times if time]  # ISO 8601 sorts as time does
    if known:
        sums.first = min([*filter(None, [sums.first]), *known])
        sums.last = max(sums.last, *known)


def _add_place(sums: Survey, record: dict[str, Any]) -> None:
    crs, (a, b, c, d, e, f) = record["crs"].decode(), record["transform"]
    rows, columns = record["backscatter"].shape[:2]
    x, y = a * columns / 2 + b * rows / 2 + c, d * columns / 2 + e * rows / 2 + f
    if crs and np.abs([x, y]).max() < MAX_COORDINATE:
        sums.centres.setdefault(crs, array("d")).extend((x, y))
    else:
        sums.unplaced += 1


EARTH_RADIUS = 6371.0  # km

CHUNK = 50_000
"""Coordinates per transformation, which converts to and from lists."""


class Places(NamedTuple):
    """Places of the patches of a split.

    Attributes:
      degrees: (patch, 2) longitude and latitude of the patch centres, WGS 84.
      unknown: number of patches without a known place.
    """

    degrees: np.ndarray
    unknown: int


def locate(centres: Mapping[str, Sequence[float]], unplaced: int) -> Places:
    """Transform patch centres to longitude and latitude.

    Args:
      centres: x and y in turn, in units of the CRS, by CRS.
      unplaced: number of patches without coordinates.
    """
    parts = [np.empty((0, 2))]
    for crs, values in centres.items():
        pairs = np.asarray(values, float).reshape(-1, 2)
        for start in range(0, len(pairs), CHUNK):
            x, y = pairs[start : start + CHUNK].T
            parts.append(_to_degrees(crs, x, y))
    degrees = np.concatenate(parts)
    known = (np.abs(degrees) <= [360, 90]).all(1)  # NaN is not
    return Places(degrees[known], unplaced + int((~known).sum()))


def _to_degrees(crs: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return (point, 2) longitude and latitude, NaN where the CRS or the point cannot be used."""
    try:
        return np.column_stack(transform(crs, "EPSG:4326", x, y))
    except CPLE_AppDefinedError:  # one point outside of the projection's domain fails them all
        if len(x) == 1:
            return np.full((1, 2), np.nan)
        middle = len(x) // 2
        halves = slice(middle), slice(middle, None)
        return np.concatenate([_to_degrees(crs, x[half], y[half]) for half in halves])
    except (CPLE_BaseError, CRSError, RasterioError, ValueError):  # of the CRS
        return np.full((len(x), 2), np.nan)


def map_degrees(places: Mapping[str, Places]) -> dict[str, np.ndarray]:
    """Return (patch, 2) longitude and latitude by split, without a jump between neighbours.

    Longitudes are cut at the widest gap between all patches, so they may exceed 180 degrees.

    Args:
      places: by split.
    """
    longitudes = np.concatenate([split_places.degrees[:, 0] for split_places in places.values()])
    around = np.unique(np.round(longitudes, 9) % 360)
    first = np.roll(around, -1)[np.argmax(np.diff(around, append=around[0] + 360))]

    def unwrap(values: np.ndarray) -> np.ndarray:
        return first + np.round(values - first, 9) % 360

    everywhere = unwrap(longitudes)
    turns = 360 * np.round((everywhere.min() + everywhere.max()) / 720)
    return {
        split: np.column_stack([unwrap(degrees[:, 0]) - turns, degrees[:, 1]])
        for split, (degrees, _) in places.items()
    }


def distances(places: Places, others: Places) -> np.ndarray:
    """Return (patch,) distances in km to the nearest of the other places, centre to centre."""
    near, _ = cKDTree(_on_sphere(others.degrees)).query(_on_sphere(places.degrees))
    return EARTH_RADIUS * 2 * np.arcsin(np.minimum(near / 2, 1.0))


def _on_sphere(degrees: np.ndarray) -> np.ndarray:
    """Return (place, 3) points on the unit sphere."""
    longitude, latitude = np.radians(degrees).T
    return np.column_stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ]
    )
