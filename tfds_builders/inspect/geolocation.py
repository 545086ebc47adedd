"""Longitude and latitude of patch centres from any CRS, and distances between them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rasterio.errors import CRSError, RasterioError
from rasterio.warp import transform
from scipy.spatial import cKDTree

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
            try:
                parts.append(np.column_stack(transform(crs, "EPSG:4326", x, y)))
            except (CRSError, RasterioError, ValueError):  # unknown CRS
                parts.append(np.full((len(x), 2), np.nan))
    degrees = np.concatenate(parts)
    known = np.isfinite(degrees).all(1) & (np.abs(degrees[:, 1]) <= 90)
    return Places(degrees[known], unplaced + int((~known).sum()))


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
