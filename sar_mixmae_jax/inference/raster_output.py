"""Georeferenced rasters of results: Cloud-Optimized GeoTIFFs, complete or absent."""

import dataclasses
import os
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio import enums
from rasterio._err import CPLE_BaseError  # `copy` raises it as it is
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.shutil import copy
from rasterio.windows import Window

from sar_mixmae_jax.inference.raster_overviews import Resampling, raster_with_overviews
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_path

GDAL_SETTINGS = {
    "GDAL_CACHEMAX": 112 * 2**20,  # bytes; one cache for the process: as where scenes are read
    "GDAL_PAM_ENABLED": "NO",  # no .aux.xml beside the file
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}
COG_SETTINGS = {
    "compress": "DEFLATE",
    "predictor": "YES",
    "level": 1,
    "bigtiff": "IF_SAFER",
    "num_threads": "ALL_CPUS",
}
BLOCK = 512
"""Side of a block of a Cloud-Optimized GeoTIFF, pixels."""
MAX_COG_BANDS = 64
"""A COG stores the bands of a pixel together; more bands are stored one after the other."""
CHUNK_BYTES = 64 * 2**20
"""Memory for a part of an array that is written."""

WriteRows = Callable[[int, np.ndarray], None]
"""(first row, (band, rows, columns)) -> None; rows are written once, from top to bottom."""


@dataclasses.dataclass(frozen=True)
class Grid:
    """Grid of a raster.

    Attributes:
      shape: (rows, columns).
      crs: authority code or WKT; "" where unknown.
      transform: (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f; not
        finite where unknown.
    """

    shape: tuple[int, int]
    crs: str
    transform: tuple[float, ...]

    def coarsen(self, cell: int) -> "Grid":
        """Return the grid of cells of `cell` pixels a side; the last may lie partly outside."""
        a, b, c, d, e, f = self.transform
        rows, columns = (-(-side // cell) for side in self.shape)
        return Grid((rows, columns), self.crs, (a * cell, b * cell, c, d * cell, e * cell, f))

    def profile(self) -> dict[str, Any]:
        """Return the settings of rasterio."""
        profile: dict[str, Any] = {"height": self.shape[0], "width": self.shape[1]}
        if self.crs:
            profile["crs"] = CRS.from_string(self.crs)
        if np.isfinite(self.transform).all():
            profile["transform"] = rasterio.Affine(*self.transform)
        return profile


@dataclasses.dataclass(frozen=True)
class RasterBands:
    """Bands of a raster.

    Attributes:
      names: descriptions.
      dtype: dtype of the values.
      nodata: value of pixels without a result.
      overviews: resampling of the overviews.
      scale: factor from stored to described values.
      colours: (red, green, blue) of values of the only band.
    """

    names: tuple[str, ...]
    dtype: str
    nodata: float
    overviews: Resampling
    scale: float = 1.0
    colours: Mapping[int, tuple[int, int, int]] = dataclasses.field(default_factory=dict)


@contextmanager
def write_raster(
    path: Path, grid: Grid, bands: RasterBands, tags: Mapping[str, str]
) -> Iterator[WriteRows]:
    """Write a raster in rows: a Cloud-Optimized GeoTIFF if it has at most `MAX_COG_BANDS` bands.

    The rows go to a temporary file, which becomes the raster at the end of the block; the raster is
    compared with the rows before it gets its name.

    Args:
      path: path of the file.
      grid: grid of the raster.
      bands: names of the bands of the raster.
      tags: tags of the file, by name.

    Yields:
      Function that writes rows.

    Raises:
      InputError: the file cannot be written.
    """
    checksums = np.zeros(len(bands.names), np.uint32)
    with (
        report_raster_errors(path),
        rasterio.Env(**GDAL_SETTINGS),
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        _temporary_path(path) as rows_path,
    ):
        profile = {
            **grid.profile(),
            "driver": "GTiff",
            "count": len(bands.names),
            "dtype": bands.dtype,
            "nodata": bands.nodata,
            "interleave": "band",
            "bigtiff": "if_safer",
        }
        with rasterio.open(rows_path, "w", **profile) as raster:
            raster.update_tags(**tags)
            raster.scales = (bands.scale,) * len(bands.names)
            for number, name in enumerate(bands.names, start=1):
                raster.set_band_description(number, name)
            if bands.colours:
                raster.write_colormap(1, dict(bands.colours))

            def write(first: int, values: np.ndarray) -> None:
                window = Window(0, first, values.shape[2], values.shape[1])
                with report_raster_errors(path), rasterio.Env(**GDAL_SETTINGS):
                    raster.write(values, window=window)
                for number, band in enumerate(values):
                    data = np.ascontiguousarray(band).data
                    checksums[number] = zlib.crc32(data, int(checksums[number]))

            yield write
        with atomic_path(path) as partial:
            if len(bands.names) > MAX_COG_BANDS:
                rows_path.replace(partial)
            else:
                with raster_with_overviews(rows_path, bands.overviews, BLOCK) as source:
                    copy(source, partial, driver="COG", blocksize=BLOCK, **COG_SETTINGS)
            with rasterio.open(partial) as raster:
                _verify(raster, checksums)


@contextmanager
def _temporary_path(path: Path) -> Iterator[Path]:
    """Yield the path of a file beside another one, and remove the file at the end."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.rows.partial")
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _verify(raster: DatasetReader, checksums: np.ndarray) -> None:
    """Compare the CRC-32 of every band with that of the rows that were written.

    Raises:
      OSError: they differ; GDAL does not report every failure to write.
    """
    for number, expected in enumerate(checksums, start=1):
        found = 0
        for first in range(0, raster.height, BLOCK):
            window = Window(0, first, raster.width, min(BLOCK, raster.height - first))
            found = zlib.crc32(raster.read(number, window=window).data, found)
        if found != expected:
            raise OSError(f"band {number} was not written completely")


def check_existing(path: Path, expected: Mapping[str, str]) -> None:
    """Check that an existing raster is whole, and made as a new one would be.

    Args:
      path: path of the raster.
      expected: some of its tags.

    Raises:
      InputError: the raster is damaged, or was made with other settings.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.open(path) as raster,
        ):
            tags = raster.tags()
            corner = Window(raster.width - 1, raster.height - 1, 1, 1)
            raster.read(raster.count, window=corner)  # it is stored last
    except RasterioError as error:
        raise InputError(
            f"{path} cannot be read ({first_line(error)}): give --overwrite"
        ) from error
    for name, value in expected.items():
        if tags.get(name) != value:
            raise InputError(
                f"{path}: found a map with {name} {tags.get(name)}, expected {value}: give "
                "--overwrite, or another --out"
            )


def read_overview(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """Return the first band of a raster of classes at another size, by the most frequent class."""
    with (
        report_raster_errors(path, "read"),
        rasterio.Env(**GDAL_SETTINGS),
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        rasterio.open(path) as raster,
    ):
        return raster.read(1, out_shape=shape, resampling=enums.Resampling.mode)


@contextmanager
def report_raster_errors(path: Path, action: str = "written") -> Iterator[None]:
    """Turn errors of rasterio into one that names the file and the remedy.

    Args:
      path: path of the raster.
      action: what failed, "written" or "read", for the message.

    Raises:
      InputError: the block raised an error of rasterio or the system.
    """
    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise InputError(
            f"{path} cannot be {action} ({first_line(error)}): check the folder and the space on "
            "the disk"
        ) from error


def write_array(
    path: Path, values: np.ndarray, grid: Grid, bands: RasterBands, tags: Mapping[str, str]
) -> None:
    """Write (row, column, band) values, which may be memory-mapped, as `write_raster` does."""
    rows, columns, count = values.shape
    height = max(1, CHUNK_BYTES // (columns * count * values.itemsize))
    with write_raster(path, grid, bands, tags) as write:
        for first in range(0, rows, height):
            write(first, np.moveaxis(values[first : first + height], -1, 0))
