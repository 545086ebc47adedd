"""Records of images: GeoTIFFs read from memory and warped onto the grid of Sentinel-2."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader, MemoryFile
from rasterio.transform import Affine
from rasterio.warp import Resampling, reproject

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import first_line
from tfds_builders import geotiff, units
from tfds_builders.bad_files import BadFilesError, bad_file, collect_results
from tfds_builders.geotiff import Georeference
from tfds_builders.sen12_flood.archive import Source, read
from tfds_builders.shards import FLOOR_COUNTS, Example
from tfds_builders.zero_regions import border_zeros, zero_or_nodata

MAX_SIDE = 8192
"""Pixels; a larger image is not of this archive and would exhaust the memory of a build."""


class Grid(NamedTuple):
    """Pixel grid on the ground.

    Attributes:
      shape: rows and columns.
      place: CRS and affine transform.
    """

    shape: tuple[int, int]
    place: Georeference


@contextmanager
def open_geotiff(source: Source) -> Iterator[DatasetReader]:
    """Open a GeoTIFF of one band, in memory; other formats are refused.

    Raises:
      BadFilesError: it cannot be read, now or while it is open, or has no CRS.
    """
    content = read(source)
    if not content:  # rasterio would open an empty MemoryFile for writing
        raise bad_file(str(source), "found 0 bytes, expected a GeoTIFF: download or copy it again")
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(**geotiff.GDAL_SETTINGS),
            MemoryFile(content) as memory,
            memory.open(driver="GTiff") as raster,
        ):
            if max(raster.shape) > MAX_SIDE or raster.count != 1:
                raise bad_file(
                    str(source),
                    f"found {(raster.count, *raster.shape)} (bands, rows, columns), expected one "
                    f"band of {MAX_SIDE} pixels at most on a side: is this the archive?",
                )
            if not raster.crs:
                raise bad_file(
                    str(source), "found no CRS, expected a georeferenced image: copy it again"
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
    """Return the grid of an image without reading its pixels.

    Raises:
      BadFilesError: it cannot be opened.
    """
    with open_geotiff(source) as raster:
        return Grid(raster.shape, geotiff.georeference(raster))


class Warped(NamedTuple):
    """A band before and after warping.

    Attributes:
      source: (row, column) float32 values of the file, NaN = nodata.
      values: (row, column) float32 values of the nearest pixel on the grid; 0 outside of the image,
        NaN = nodata.
    """

    source: np.ndarray
    values: np.ndarray


def warp(source: Source, grid: Grid) -> Warped:
    """Read a band and warp it onto a grid by nearest neighbour.

    Raises:
      BadFilesError: it cannot be read or warped, or holds no floating-point values.
    """
    with open_geotiff(source) as raster:
        if not geotiff.is_floating(raster.dtypes[0]):
            raise bad_file(
                str(source),
                f"found {raster.dtypes[0]} values, expected floating-point backscatter: copy it "
                "again",
            )
        values = geotiff.read_band(raster, 1)
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


ZEROS = ("nodata", "border")
"""Meanings of a power of 0; see `read_record`."""

UNKNOWN = -1
"""Value of `full_coverage` where the list does not state it."""

TEXT_FIELDS = ("sequence", "product", "vh", "vv", "reference", "time", "orbit_pass")


class Item(NamedTuple):
    """A row of the plan.

    Attributes:
      sequence: id of the sequence.
      product: name of the Sentinel-1 product.
      vh: name of the file of band VH in the archive.
      vv: name of the file of band VV.
      reference: name of the file whose grid the image is warped to.
      time: acquisition time, ISO 8601, or "".
      orbit_pass: "ASCENDING", "DESCENDING" or "".
      flooded: 0 or 1.
      full_coverage: 0, 1 or `UNKNOWN`.
      relative_orbit: 1 to 175; 0 where unknown.
    """

    sequence: str
    product: str
    vh: str
    vv: str
    reference: str
    time: str
    orbit_pass: str
    flooded: int
    full_coverage: int
    relative_orbit: int


def as_rows(items: list[Item]) -> np.ndarray:
    """Return items as a structured array, which takes less memory than tuples."""
    columns = {name: np.array([getattr(item, name) for item in items]) for name in Item._fields}
    columns = {
        name: np.char.encode(values.astype(str), "utf-8")
        if name in TEXT_FIELDS
        else values.astype("i2")
        for name, values in columns.items()
    }
    rows = np.empty(len(items), dtype=[(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        rows[name] = values
    return rows


def as_item(row: tuple[Any, ...]) -> Item:
    """Return the item of a row; inverse of `as_rows`."""
    values = [value.decode() if isinstance(value, bytes) else value for value in row]
    return Item._make(values)


def sources(place: Path, grids: dict[str, Grid], zeros: str, row: tuple[Any, ...]) -> list[Path]:
    """Return the paths of the files that a record is read from: the zip, or its own files."""
    del grids, zeros
    item = as_item(row)
    if place.is_file():
        return [place]
    return [place / name for name in (item.vh, item.vv, item.reference)]


def read_record(place: Path, grids: dict[str, Grid], zeros: str, row: tuple[Any, ...]) -> Example:
    """Read the record of an image.

    Args:
      place: the zip or the folder.
      grids: grid of every sequence.
      zeros: meaning of a power of 0: "nodata"; or "border": nodata where both bands are 0 in a
        region connected to the frame's edge, else a dark pixel.
      row: see `Item`.

    Raises:
      BadFilesError: a band cannot be used.
    """
    item = as_item(row)
    grid = grids[item.sequence]
    files = dict(zip(BANDS, (item.vh, item.vv), strict=True))
    bands = collect_results(
        *(partial(read_band, Source(place, files[band]), grid) for band in BANDS)
    )
    power = np.stack(bands, axis=-1)
    empty = (power == 0) | np.isnan(power)
    if zeros == "nodata":
        power[empty] = np.nan
    else:
        power[border_zeros(zero_or_nodata(power))] = np.nan
    return {
        "id": f"{item.sequence}/{item.product}",
        "backscatter": units.to_db(power, "linear"),
        FLOOR_COUNTS: units.count_floored(power, "linear"),
        "time": item.time,
        "crs": grid.place.crs,
        "transform": np.array(grid.place.transform),
        "sequence": item.sequence,
        "flooded": np.uint8(item.flooded),
        "full_coverage": np.int8(item.full_coverage),
        "orbit_pass": item.orbit_pass,
        "relative_orbit": np.int16(item.relative_orbit),
        "zero_share": np.float64(empty.mean((0, 1)).max()),
    }


def read_band(source: Source, grid: Grid) -> np.ndarray:
    """Read a band on a grid: linear power, 0 outside of the image, NaN = nodata.

    Raises:
      BadFilesError: it cannot be read, is not linear power, or does not overlap the grid.
    """
    file_values, warped = warp(source, grid)
    measured = file_values[file_values != 0]
    if defect := units.find_unit_error(units.summarise(measured), "linear"):
        raise bad_file(str(source), defect.replace("give --unit=dB", "is this the archive?"))
    on_grid = warped[~np.isnan(warped) & (warped != 0)]
    if not on_grid.size:
        raise bad_file(
            str(source),
            "found no measurement on the grid of its sequence's Sentinel-2 reference, expected an "
            "image of that place: it lies outside, move it out of the dataset",
        )
    if units.is_floored(on_grid).all():
        raise bad_file(
            str(source),
            f"found values from {on_grid.min():.4g} to {on_grid.max():.4g}, none of them above "
            f"{units.PLAUSIBLE_DB[0]:g} dB, expected linear power: download or copy it again",
        )
    return warped
