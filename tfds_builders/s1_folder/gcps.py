"""Grid on the ground of an image with ground control points, and its pixels on that grid.

Nearest pixels are taken, so that speckle stays as it is and nodata is not mixed with measurements.
Their places come from thin-plate splines through the points, evaluated every `STEP` pixels.
"""

from typing import NamedTuple

import numpy as np
from rasterio._err import CPLE_BaseError  # `transform` raises it as it is
from rasterio.control import GroundControlPoint
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine, GCPTransformer
from rasterio.warp import transform
from rasterio.windows import Window
from scipy.ndimage import map_coordinates

from sar_mixmae_jax.utils.errors import first_line
from tfds_builders import geotiff
from tfds_builders.bad_files import bad_file
from tfds_builders.geotiff import Georeference

STEP = 16
"""Pixels between places that are computed; those between them are interpolated."""


TILE = 512
"""Side of the parts of a window that are read at once: strips of a turned image are its whole."""


class GroundGrid(NamedTuple):
    """Pixels on the ground.

    Attributes:
      shape: (rows, columns).
      georeference: position, north up, in the UTM zone of the centre of the image.
    """

    shape: tuple[int, int]
    georeference: Georeference


def find_grid(raster: DatasetReader) -> GroundGrid:
    """Return the grid of an image: square pixels of the mean size of its pixels on the ground.

    Raises:
      BadFilesError: there are fewer than four points, they have no CRS, or GDAL cannot use them.
    """
    points, crs = raster.gcps
    if crs is None or len(points) < 4:
        raise bad_file(
            raster.name,
            f"found {len(points)} ground control points {'with' if crs else 'without'} a CRS, "
            "expected at least 4 with one: leave out --use_gcps, or geocode it",
        )
    try:
        return _fit_grid(points, crs.to_string(), raster.shape)
    except (CPLE_BaseError, RasterioError, SystemError, ValueError, OverflowError) as error:
        raise bad_file(
            raster.name,
            f"its ground control points cannot be used ({first_line(error)}): leave out "
            "--use_gcps, or geocode it",
        ) from error


def _fit_grid(points: list[GroundControlPoint], crs: str, shape: tuple[int, int]) -> GroundGrid:
    """Return the grid of an image of (rows, columns) with points in a CRS."""
    longitude, latitude = _transform(points, crs, "EPSG:4326")
    east = np.unwrap(np.radians(longitude)).mean()
    target = utm_zone(np.degrees(east), latitude.mean())
    ground = np.stack(_transform(points, crs, target))  # (2, point)
    pixels = np.array([[point.row, point.col, 1.0] for point in points])
    by_row, by_column = np.linalg.lstsq(pixels, ground.T, rcond=None)[0][:2]
    size = float(f"{np.sqrt(abs(np.linalg.det([by_row, by_column]))):.3g}")
    rows, columns = shape
    edge = np.linspace(0, 1, 33)
    edges = [(edge, 0 * edge), (edge, 0 * edge + 1), (0 * edge, edge), (0 * edge + 1, edge)]
    row, column = np.concatenate([np.stack(each) for each in edges], axis=1)
    with GCPTransformer(_on_ground(points, ground), tps=True) as to_ground:
        x, y = to_ground.xy(row * rows, column * columns, offset="ul")
    west, north = np.floor(np.min(x) / size) * size, np.ceil(np.max(y) / size) * size
    ground_shape = (
        int(np.ceil((north - np.min(y)) / size)),
        int(np.ceil((np.max(x) - west) / size)),
    )
    return GroundGrid(ground_shape, Georeference(target, (size, 0.0, west, 0.0, -size, north)))


def utm_zone(longitude: float, latitude: float) -> str:
    """Return the UTM zone of a place in degrees; beyond 84 degrees, the polar zone."""
    if abs(latitude) > 84:
        return "EPSG:32661" if latitude > 0 else "EPSG:32761"
    zone = int(((longitude + 180) % 360) // 6) + 1
    return f"EPSG:{326 if latitude >= 0 else 327}{zone:02d}"


def read_band(
    raster: DatasetReader, band: int, grid: GroundGrid, window: Window, nodata: float | None
) -> np.ndarray:
    """Read a window of the grid: (rows, columns) float32, NaN = nodata and outside of the image.

    Args:
      raster: the file.
      band: number of the band, from 1.
      grid: what `find_grid` returned.
      window: part of the grid.
      nodata: see `geotiff.read_band`.

    Raises:
      BadFilesError: the band is no measurement.
    """
    pixels = _image_pixels(raster, grid, window)
    values = np.full((window.height, window.width), np.nan, np.float32)
    for top in range(0, window.height, TILE):
        for left in range(0, window.width, TILE):
            tile = (slice(top, top + TILE), slice(left, left + TILE))
            _read_tile(raster, band, (pixels[0][tile], pixels[1][tile]), nodata, values[tile])
    return values


def _read_tile(
    raster: DatasetReader,
    band: int,
    pixels: tuple[np.ndarray, np.ndarray],
    nodata: float | None,
    values: np.ndarray,
) -> None:
    """Fill `values` at the given rows and columns of the image, where they are inside of it."""
    row, column = pixels
    rows, columns = raster.shape
    inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
    if not inside.any():
        return
    row, column = row[inside], column[inside]
    top, left = int(row.min()), int(column.min())
    part = Window(left, top, int(column.max()) - left + 1, int(row.max()) - top + 1)
    values[inside] = geotiff.read_band(raster, band, part, nodata)[row - top, column - left]


def _image_pixels(
    raster: DatasetReader, grid: GroundGrid, window: Window
) -> tuple[np.ndarray, np.ndarray]:
    """Return rows and columns of the image at the pixels of a window, (rows, columns) integers."""
    points, crs = raster.gcps
    crs_name, place = grid.georeference
    ground = np.stack(_transform(points, crs.to_string(), crs_name))
    coarse_rows = np.arange(0, window.height + STEP, STEP)
    coarse_columns = np.arange(0, window.width + STEP, STEP)
    column, row = np.meshgrid(
        window.col_off + coarse_columns + 0.5, window.row_off + coarse_rows + 0.5
    )
    x, y = Affine(*place) * (column.ravel(), row.ravel())
    with GCPTransformer(_on_ground(points, ground), tps=True) as to_ground:
        found = to_ground.rowcol(x, y, op=np.asarray)
    at = np.meshgrid(np.arange(window.height) / STEP, np.arange(window.width) / STEP, indexing="ij")
    row, column = (
        np.floor(map_coordinates(np.reshape(each, row.shape), at, order=1)).astype(np.int64)
        for each in found
    )
    return row, column


def _transform(
    points: list[GroundControlPoint], crs: str, target: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return x and y of points in another CRS."""
    x, y = transform(crs, target, [point.x for point in points], [point.y for point in points])[:2]
    return np.array(x), np.array(y)


def _on_ground(points: list[GroundControlPoint], ground: np.ndarray) -> list[GroundControlPoint]:
    return [
        GroundControlPoint(point.row, point.col, x, y)
        for point, x, y in zip(points, *ground, strict=True)
    ]
