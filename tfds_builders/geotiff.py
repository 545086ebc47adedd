"""Read and write GeoTIFFs, compare their grids, and find zeros that mean nodata."""

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.windows import Window
from scipy.ndimage import label

from sar_mixmae_jax.utils.errors import first_line
from tfds_builders.bad_files import BadFilesError, bad_file

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its errors are raised as BadFilesError

GDAL_SETTINGS = {
    "GDAL_CACHEMAX": 112 * 2**20,  # bytes of decoded blocks; the default grows with the machine
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # files beside may refer to any file or URL
    "GDAL_PAM_ENABLED": "NO",
}


class Georeference(NamedTuple):
    """Position of an image on the ground.

    Attributes:
      crs: authority code such as "EPSG:32633", else WKT, or "" where unknown.
      transform: (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f, from
        pixel corners to the units of the CRS; NaN where unknown.
    """

    crs: str
    transform: tuple[float, ...]


NO_GEOREFERENCE = Georeference("", (np.nan,) * 6)
"""Georeference of an image at an unknown position."""


@contextmanager
def open_raster(path: Path, *, keep_open: bool = False) -> Iterator[DatasetReader]:
    """Open a GeoTIFF, and no other format, since others can refer to further files and URLs.

    Args:
      path: path of the file.
      keep_open: leave the file open and its decoded blocks in memory; the last four files are.

    Raises:
      BadFilesError: the file cannot be read, now or while it is open.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(**GDAL_SETTINGS),
            _cached_raster(path) if keep_open else rasterio.open(path, driver="GTiff") as raster,
        ):
            yield raster
    except BadFilesError:
        raise
    except PermissionError as error:
        raise bad_file(path, f"cannot be opened ({first_line(error)}): allow reading") from error
    except (RasterioError, OSError, ValueError) as error:
        raise bad_file(
            path,
            f"cannot be read as a GeoTIFF ({first_line(error)}): download or copy it again",
        ) from error


def _cached_raster(path: Path) -> AbstractContextManager[DatasetReader]:
    status = path.stat()
    return nullcontext(_open_cached(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=4)
def _open_cached(path: Path, *version: int) -> DatasetReader:
    del version  # part of the key: the file may have been replaced
    return rasterio.open(path, driver="GTiff")


def read_band(
    raster: DatasetReader, band: int, window: Window | None = None, nodata: float | None = None
) -> np.ndarray:
    """Read a band as (rows, columns) float32 with NaN = nodata, scale and offset applied.

    Args:
      raster: the file.
      band: number of the band, from 1.
      window: part of the image; None: all of it.
      nodata: value that means nodata besides NaN, the tagged value, and the file's mask.

    Raises:
      BadFilesError: the band is not of floating-point numbers.
    """
    dtype = raster.dtypes[band - 1]
    if dtype.startswith("complex"):
        raise bad_file(
            raster.name,
            f"found {dtype} values, expected detected backscatter: calibrate and multilook it",
        )
    if not is_floating(dtype):
        raise bad_file(
            raster.name,
            f"found {dtype} values, expected floating-point backscatter: integers have lost the "
            "fractions of a dB; export it again as float",
        )
    values = raster.read(band, window=window, masked=True)
    if nodata is not None:
        values = np.ma.masked_equal(values, np.asarray(nodata, values.dtype))
    values = values * raster.scales[band - 1] + raster.offsets[band - 1]
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is checked later
        return values.astype(np.float32).filled(np.nan)


def is_floating(dtype: str) -> bool:
    """Return True if rasterio's name of a type is one of floating-point numbers."""
    return dtype in ("float16", "float32", "float64")


def georeference(raster: DatasetReader) -> Georeference:
    """Return the georeference of a raster."""
    crs = raster.crs.to_string() if raster.crs else ""
    if not crs and raster.transform == Affine.identity():
        return NO_GEOREFERENCE
    return Georeference(crs, tuple(raster.transform)[:6])


def window_georeference(image: Georeference, row: int, column: int) -> Georeference:
    """Return the georeference of a window, given the row and column of its upper left pixel."""
    a, b, c, d, e, f = image.transform
    corner = (a * column + b * row + c, d * column + e * row + f)
    return Georeference(image.crs, (a, b, corner[0], d, e, corner[1]))


def same_grid(first: Georeference, second: Georeference) -> bool:
    """Return True if two images of one size have the same pixels, to a thousandth of a pixel."""
    if first.crs != second.crs:
        return False
    a, b, _, d, e, _ = first.transform
    pixel = max(map(abs, (a, b, d, e)))
    drift = 1e-7 * pixel  # a thousandth of a pixel over 10,000 pixels
    tolerance = (drift, drift, 1e-3 * pixel) * 2
    both_unknown = np.isnan(first.transform + second.transform).all()
    differences = np.abs(np.subtract(first.transform, second.transform))
    return bool(both_unknown or (differences <= tolerance).all())


METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude."""


def pixel_spacing(georeference: Georeference) -> float:
    """Return the distance between rows in metres; NaN if the CRS is unknown."""
    if not georeference.crs:
        return np.nan
    _, b, _, _, e, _ = georeference.transform
    crs = CRS.from_string(georeference.crs)
    scale = METRES_PER_DEGREE if crs.is_geographic else crs.linear_units_factor[1]
    return float(np.hypot(b, e)) * scale


def write_band(path: Path, values: np.ndarray, **profile: Any) -> None:
    """Write a (rows, columns) array as a GeoTIFF, by default of 10 m pixels in UTM zone 33N.

    Args:
      path: path of the file.
      values: array of a type that GeoTIFF has.
      **profile: settings of rasterio, such as nodata or crs, that replace the defaults.
    """
    write_bands(path, values[None], **profile)


def write_bands(path: Path, values: np.ndarray, **profile: Any) -> None:
    """Write a (band, rows, columns) array as a GeoTIFF; see `write_band`.

    Args:
      path: path of the file.
      values: array of a type that GeoTIFF has.
      **profile: settings of rasterio, and `descriptions`, the names of the bands.
    """
    descriptions = profile.pop("descriptions", ())
    settings = {
        "driver": "GTiff",
        "count": values.shape[0],
        "height": values.shape[1],
        "width": values.shape[2],
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": Affine(10.0, 0.0, 404_400.0, 0.0, -10.0, 5_342_400.0),
        **profile,
    }
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(values)
        for number, name in enumerate(descriptions, start=1):
            raster.set_band_description(number, name)


class Strips:
    """A boolean (rows, columns) mask as strips of rows, packed to one bit per pixel."""

    def __init__(self, strips: Iterable[np.ndarray] = ()) -> None:
        """Pack strips, given from top to bottom."""
        self._packed: list[np.ndarray] = []
        self._columns: list[int] = []
        for strip in strips:
            self.append(strip)

    def append(self, strip: np.ndarray) -> None:
        """Add a strip below the others."""
        self._packed.append(np.packbits(strip, axis=1))
        self._columns.append(strip.shape[1])

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, number: int) -> np.ndarray:
        count = self._columns[number]
        return np.unpackbits(self._packed[number], axis=1, count=count).astype(bool)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[number] for number in range(len(self)))

    def __setitem__(self, number: int, strip: np.ndarray) -> None:
        self._packed[number] = np.packbits(strip, axis=1)


def zero_or_nodata(values: np.ndarray) -> np.ndarray:
    """Return a mask of the pixels of a (…, band) image of which all bands are 0 or NaN."""
    return ((values == 0) | np.isnan(values)).all(-1)


def border_zeros(zero: np.ndarray) -> np.ndarray:
    """Return the pixels of a (rows, columns) mask that are connected to its edge."""
    return border_zeros_in_strips(Strips([zero]))[0]


def border_zeros_in_strips(zero: Strips) -> Strips:
    """Return the pixels of a mask that are connected to its edge, one strip in memory at a time.

    The connected regions are followed downwards and upwards from strip to strip until none grows.
    """
    border = Strips(np.zeros_like(strip) for strip in zero)
    nonempty = [number for number in range(len(zero)) if zero[number].any()]
    sizes = dict.fromkeys(nonempty, 0)
    grown = True
    while grown:
        grown = False
        for number in [*nonempty, *reversed(nonempty)]:
            seed = border[number]
            seed[:, [0, -1]] = True
            seed[0] |= _dilate(border[number - 1][-1]) if number > 0 else True
            seed[-1] |= _dilate(border[number + 1][0]) if number < len(zero) - 1 else True
            connected = _fill(zero[number], seed)
            if connected.sum() > sizes[number]:
                grown, sizes[number], border[number] = True, connected.sum(), connected
    return border


def _dilate(row: np.ndarray) -> np.ndarray:
    """Return a row with its neighbours: the pixels that it touches in the next row."""
    wide = np.pad(row, 1)
    return wide[:-2] | row | wide[2:]


def _fill(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """Return the regions of a mask that contain a seed; diagonal neighbours are connected."""
    regions, count = label(mask, structure=np.ones((3, 3)))
    keep = np.zeros(count + 1, bool)
    keep[regions[seed]] = True
    keep[0] = False
    return keep[regions]
