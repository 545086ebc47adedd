"""Where patches lie: longitude and latitude from any CRS, and how far they are from each other."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform
from scipy.spatial import cKDTree

EARTH_RADIUS = 6371.0  # km

CHUNK = 50_000
"""Coordinates that are transformed at once: the library takes and gives lists."""


class Places(NamedTuple):
    """Where patches lie.

    Attributes:
      degrees: (patch, 2) longitude and latitude of patch centres.
      unknown: patches whose place cannot be said.
    """

    degrees: np.ndarray
    unknown: int


def locate(centres: Mapping[str, Sequence[float]], unplaced: int) -> Places:
    """Longitude and latitude on WGS 84.

    Args:
      centres: by CRS, x and y of patch centres in turn, in its units.
      unplaced: patches that have no coordinates.
    """
    parts = [np.empty((0, 2))]
    for crs, values in centres.items():
        pairs = np.asarray(values, float).reshape(-1, 2)
        for start in range(0, len(pairs), CHUNK):
            x, y = pairs[start : start + CHUNK].T
            try:
                parts.append(np.column_stack(transform(crs, "EPSG:4326", x, y)))
            except (CRSError, RasterioError, ValueError):  # no CRS that is known here
                parts.append(np.full((len(x), 2), np.nan))
    degrees = np.concatenate(parts)
    known = np.isfinite(degrees).all(1) & (np.abs(degrees[:, 1]) <= 90)
    return Places(degrees[known], unplaced + int((~known).sum()))


def distances(places: Places, others: Places) -> np.ndarray:
    """(patch,) distance in km of each patch to the nearest of the others, centre to centre."""
    near, _ = cKDTree(_on_sphere(others.degrees)).query(_on_sphere(places.degrees))
    return EARTH_RADIUS * 2 * np.arcsin(np.minimum(near / 2, 1.0))


def _on_sphere(degrees: np.ndarray) -> np.ndarray:
    """(place, 3) points on the unit sphere."""
    longitude, latitude = np.radians(degrees).T
    return np.column_stack(
        [
            np.cos(latitude) * np.cos(longitude),
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
        ]
    )
