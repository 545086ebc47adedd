"""GeoTIFFs of the archive, read from memory, and warped onto a grid."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from sar_mixmae_jax.errors import first_line
from tfds_builders import geotiff
from tfds_builders.geotiff import Georeference
from tfds_builders.problems import BadFilesError, bad_file
from tfds_builders.sen12_flood.archive import Source, read

LARGEST_SIDE = 8192
"""Pixels: more are no image of this archive, and would not fit into the memory of a build."""


class Grid(NamedTuple):
    """Pixels on the ground.

    Attributes:
      shape: rows and columns.
      place: where they lie.
    """

    shape: tuple[int, int]
    place: Georeference


@contextmanager
def opened(source: Source) -> Iterator[DatasetReader]:
    """Opens a GeoTIFF, and no other format, without a file on the disk.

    Raises:
      BadFilesError: it cannot be read, now or while it is open, or does not say where it lies.
    """
    content = read(source)
    if not content:  # which rasterio takes for a file to be written
        raise bad_file(str(source), "found 0 bytes, expected a GeoTIFF: download or copy it again")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(**geotiff.SETTINGS),
            MemoryFile(content) as memory,
            memory.open(driver="GTiff") as raster,
        ):
            if max(raster.shape) > LARGEST_SIDE or raster.count != 1:
                raise bad_file(
                    str(source),
                    f"found {(raster.count, *raster.shape)} (bands, rows, columns), expected one "
                    f"band of {LARGEST_SIDE} pixels at most on a side: is this the archive?",
                )
            if not raster.crs:
                raise bad_file(
                    str(source), "does not say where it lies, expected a CRS: copy it again"
                )
            yield raster
    except BadFilesError:
        raise
    except (RasterioError, OSError, ValueError) as error:
        raise bad_file(
            str(source),
            f"cannot be read as a GeoTIFF ({first_line(error)}): download or copy it again",
        ) from error


def grid_of(source: Source) -> Grid:
    """The grid of an image; its pixels are not read.

    Raises:
      BadFilesError: it cannot be opened.
    """
    with opened(source) as raster:
        return Grid(raster.shape, geotiff.georeference(raster))


class Warped(NamedTuple):
    """A band on a grid.

    Attributes:
      source: the values as the file has them, float32, NaN = nodata.
      values: (rows, columns) float32, of the nearest pixel; 0 outside of the image, NaN = nodata.
    """

    source: np.ndarray
    values: np.ndarray


def warp(source: Source, grid: Grid) -> Warped:
    """Reads a band and warps it onto a grid, by nearest neighbour.

    Raises:
      BadFilesError: it cannot be read, holds no floats, or cannot be brought there.
    """
    with opened(source) as raster:
        if not geotiff.is_floating(raster.dtypes[0]):
            raise bad_file(
                str(source),
                f"found {raster.dtypes[0]} values, expected floating-point backscatter: copy it "
                "again",
            )
        values = geotiff.read(raster, 1)
        warped = np.zeros(grid.shape, np.float32)
        reproject(
            values,
            warped,
            src_transform=raster.transform,
            src_crs=raster.crs,
            dst_transform=Affine(*grid.place.transform),
            dst_crs=CRS.from_string(grid.place.crs),
            resampling=Resampling.nearest,
        )
    return Warped(values, warped)
