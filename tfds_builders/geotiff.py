"""Opens, reads and writes GeoTIFFs; what cannot be used is refused with its name."""

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

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters of it is in our errors

GDAL_SETTINGS = {
    "GDAL_CACHEMAX": 112 * 2**20,  # of decoded blocks; the default grows with the machine
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # files beside may name any other, or an address
    "GDAL_PAM_ENABLED": "NO",
}


class Georeference(NamedTuple):
    """Where an image lies.

    Attributes:
      crs: authority code such as "EPSG:32633", else WKT, or "" where unknown.
      transform: (a, b, c, d, e, f) of x = a·column + b·row + c, y = d·column + e·row + f, from
        pixel corners to the units of the CRS; NaN where unknown.
    """

    crs: str
    transform: tuple[float, ...]


@contextmanager
def open_raster(path: Path, *, keep: bool = False) -> Iterator[DatasetReader]:
    """Opens a GeoTIFF, and no other format: others can name further files and addresses.

    Args:
      path: of the file.
      keep: leave it open, and its decoded blocks in memory, for the next time; the last few are.

    Raises:
      BadFilesError: it cannot be read, now or while it is open.
    """
    try:
        with (
            warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
            rasterio.Env(**GDAL_SETTINGS),
            _kept(path) if keep else rasterio.open(path, driver="GTiff") as raster,
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


def _kept(path: Path) -> AbstractContextManager[DatasetReader]:
    seen = path.stat()
    return nullcontext(_open(path, seen.st_mtime_ns, seen.st_size))


@lru_cache(maxsize=4)
def _open(path: Path, *version: int) -> DatasetReader:
    del version  # tells a file from the one that was there before
    return rasterio.open(path, driver="GTiff")


def read_band(
    raster: DatasetReader, band: int, window: Window | None = None, nodata: float | None = None
) -> np.ndarray:
    """Reads a band, counted from 1, as (rows, columns) float32 with NaN = nodata.

    Nodata is NaN, the tagged value, what the file's mask hides, and `nodata` if given. The scale
    and the offset that a file tells are applied.

    Raises:
      BadFilesError: the band holds no floats.
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
    with np.errstate(over="ignore"):  # of masked values; others are refused as infinite
        return values.astype(np.float32).filled(np.nan)


def is_floating(dtype: str) -> bool:
    """Whether a type, as rasterio names it, can hold backscatter."""
    return dtype in ("float16", "float32", "float64")


def georeference(raster: DatasetReader) -> Georeference:
    """Where a raster lies."""
    crs = raster.crs.to_string() if raster.crs else ""
    if not crs and raster.transform == Affine.identity():
        return NOWHERE
    return Georeference(crs, tuple(raster.transform)[:6])


def of_window(place: Georeference, row: int, column: int) -> Georeference:
    """Where a window lies whose upper left pixel is at a row and column of an image."""
    a, b, c, d, e, f = place.transform
    corner = (a * column + b * row + c, d * column + e * row + f)
    return Georeference(place.crs, (a, b, corner[0], d, e, corner[1]))


NOWHERE = Georeference("", (np.nan,) * 6)


def same_grid(one: Georeference, other: Georeference) -> bool:
    """Whether two images of one size have the same pixels, to a thousandth of one."""
    if one.crs != other.crs:
        return False
    a, b, _, d, e, _ = one.transform
    pixel = max(map(abs, (a, b, d, e)))
    drift = 1e-7 * pixel  # a thousandth of a pixel over the 10,000 of a scene
    tolerance = (drift, drift, 1e-3 * pixel) * 2
    differences = np.abs(np.subtract(one.transform, other.transform))
    return bool(np.isnan(one.transform + other.transform).all() or (differences <= tolerance).all())


METRES_PER_DEGREE = 111_320.0


def spacing(place: Georeference) -> float:
    """Distance between rows in metres; NaN where the place is unknown."""
    if not place.crs:
        return np.nan
    _, b, _, _, e, _ = place.transform
    crs = CRS.from_string(place.crs)
    scale = METRES_PER_DEGREE if crs.is_geographic else crs.linear_units_factor[1]
    return float(np.hypot(b, e)) * scale


def write_band(path: Path, values: np.ndarray, **profile: Any) -> None:
    """Writes a (rows, columns) array as a GeoTIFF, by default of 10 m pixels in UTM zone 33N.

    Args:
      path: of the file.
      values: of any type that GeoTIFF knows.
      **profile: rasterio's settings, such as nodata or crs, instead of the defaults.
    """
    write_bands(path, values[None], **profile)


def write_bands(path: Path, values: np.ndarray, **profile: Any) -> None:
    """Writes a (band, rows, columns) array as `write_band` does; `descriptions` names the bands."""
    names = profile.pop("descriptions", ())
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
        for number, name in enumerate(names, start=1):
            raster.set_band_description(number, name)


class Strips:
    """A boolean (rows, columns) mask as strips of rows, in an eighth of its size of memory."""

    def __init__(self, strips: Iterable[np.ndarray] = ()) -> None:
        """Holds some strips, from top to bottom."""
        self._packed: list[np.ndarray] = []
        self._columns: list[int] = []
        for strip in strips:
            self.append(strip)

    def append(self, strip: np.ndarray) -> None:
        """Adds a strip below the others."""
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
    """The pixels of a (rows, columns, band) image of which all bands are 0 or NaN."""
    return ((values == 0) | np.isnan(values)).all(-1)


def border_zeros(zero: np.ndarray) -> np.ndarray:
    """The pixels of a (rows, columns) mask that connect to its edge through the mask."""
    return border_zeros_in_strips(Strips([zero]))[0]


def border_zeros_in_strips(zero: Strips) -> Strips:
    """The same for a mask that is too large to be looked at in one piece.

    What touches the edge is followed downwards and upwards from strip to strip until nothing is
    found any more.
    """
    found = Strips(np.zeros_like(strip) for strip in zero)
    order = [number for number in range(len(zero)) if zero[number].any()]
    sizes = dict.fromkeys(order, 0)
    grown = True
    while grown:
        grown = False
        for number in [*order, *reversed(order)]:
            seed = found[number]
            seed[:, [0, -1]] = True
            seed[0] |= _beside(found[number - 1][-1]) if number > 0 else True
            seed[-1] |= _beside(found[number + 1][0]) if number < len(zero) - 1 else True
            reached = _fill(zero[number], seed)
            if reached.sum() > sizes[number]:
                grown, sizes[number], found[number] = True, reached.sum(), reached
    return found


def _beside(row: np.ndarray) -> np.ndarray:
    """A row and its neighbours on both sides: what it touches in the next one."""
    wide = np.pad(row, 1)
    return wide[:-2] | row | wide[2:]


def _fill(mask: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The regions of a mask that hold a seed; corners connect."""
    regions, count = label(mask, structure=np.ones((3, 3)))
    keep = np.zeros(count + 1, bool)
    keep[regions[seed]] = True
    keep[0] = False
    return keep[regions]
