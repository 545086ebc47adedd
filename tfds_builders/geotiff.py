"""Read and write GeoTIFFs, and compare their grids."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.warp import transform
from rasterio.windows import Window

from sar_mixmae_jax.utils.errors import first_line
from tfds_builders.bad_files import BadFilesError, bad_file

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # its errors are raised as BadFilesError

GDAL_SETTINGS = {
    "GDAL_CACHEMAX": 112 * 2**20,  # bytes of decoded blocks; the default grows with the machine
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # files beside may refer to any file or URL
    "GDAL_PAM_ENABLED": "NO",
}


LFS_HEADER = b"version https://git-lfs.github.com/"


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
      keep_open: leave the file open and its decoded blocks in memory; the last eight files are.

    Raises:
      BadFilesError: the file cannot be read, now or while it is open, or it is no regular file.
    """
    try:
        if path.exists() and not path.is_file():  # GDAL would wait for the writer of a pipe
            raise bad_file(path, "found a folder, pipe or device, expected a GeoTIFF: move it away")
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
        if _is_lfs_pointer(path):
            reason = "found a Git LFS pointer, expected a GeoTIFF: fetch it with git lfs pull"
        else:
            reason = f"cannot be read as a GeoTIFF ({first_line(error)}): download or copy it again"
        raise bad_file(path, reason) from error


def _is_lfs_pointer(path: Path) -> bool:
    """Return True if a file stands in the place of one that Git LFS stores elsewhere."""
    try:
        with path.open("rb") as file:
            return file.read(len(LFS_HEADER)) == LFS_HEADER
    except OSError:
        return False


def _cached_raster(path: Path) -> AbstractContextManager[DatasetReader]:
    status = path.stat()
    return nullcontext(_open_cached(path, status.st_mtime_ns, status.st_size))


@lru_cache(maxsize=8)
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
      nodata: stored value that means nodata besides NaN, the tagged value, the mask inside the
        file, and the file of its name with ".msk" added.

    Raises:
      BadFilesError: the band is no measurement, or the mask beside the file does not fit.
    """
    if error := dtype_error(raster, band):
        raise bad_file(raster.name, error)
    stored = raster.read(band, window=window)
    flags, tagged = raster.mask_flag_enums[band - 1], raster.nodatavals[band - 1]
    hidden = [] if nodata is None else [_equal(stored, nodata)]
    if tagged is not None and MaskFlags.per_dataset in flags:
        hidden.append(_equal(stored, tagged))
    if not (MaskFlags.all_valid in flags or (flags == [MaskFlags.nodata] and np.isnan(tagged))):
        hidden.append(raster.read_masks(band, window=window) == 0)
    beside = _hidden_by_side_file(raster, band, window)
    if beside is not None:
        hidden.append(beside)
    scale, offset = raster.scales[band - 1], raster.offsets[band - 1]
    with np.errstate(over="ignore", invalid="ignore"):  # infinite values are checked later
        values = stored if (scale, offset) == (1.0, 0.0) else stored * scale + offset
        values = values.astype(np.float32, copy=False)
    for pixels in hidden:
        np.copyto(values, np.nan, where=pixels)
    return values


def _equal(values: np.ndarray, number: float) -> np.ndarray:
    """Compare stored values with a number, as precisely as a floating-point type holds it."""
    if np.issubdtype(values.dtype, np.floating):
        return values == np.asarray(number, values.dtype)
    return values == number


def _hidden_by_side_file(
    raster: DatasetReader, band: int, window: Window | None
) -> np.ndarray | None:
    """Return the pixels that the mask beside a file, FILE.msk, hides; None if there is none.

    GDAL is not asked for it, since it would follow the other files beside an image too.
    """
    path = Path(raster.name + ".msk")
    if not path.is_file():
        return None
    with open_raster(path, keep_open=True) as mask:
        if mask.shape != raster.shape or mask.count not in (1, raster.count):
            raise bad_file(
                path,
                f"found {mask.count} masks of {mask.shape} pixels, expected 1 or {raster.count} of "
                f"{raster.shape}, as {Path(raster.name).name} has: remove it, or make it again",
            )
        flags = mask.tags().get(f"INTERNAL_MASK_FLAGS_{band}", "")
        of_all_bands = mask.count == 1 or (flags.isdecimal() and int(flags) & MaskFlags.per_dataset)
        return mask.read(1 if of_all_bands else band, window=window) == 0


def dtype_error(raster: DatasetReader, band: int) -> str:
    """Return the reason why a band of its type cannot be backscatter; "" if it can.

    Floating-point numbers can be, and integers with a scale or offset tag.
    """
    dtype = raster.dtypes[band - 1]
    if dtype.startswith("complex"):
        return f"found {dtype} values, expected detected backscatter: calibrate and multilook it"
    if is_floating(dtype) or (raster.scales[band - 1], raster.offsets[band - 1]) != (1.0, 0.0):
        return ""
    expected = f"found {dtype} values without scale and offset tags, expected backscatter"
    if dtype in ("uint8", "int8"):
        return f"{expected}: pictures, masks and classes are none; export it again as float"
    if dtype.startswith("uint"):
        return f"{expected}: digital numbers need calibration to sigma0 or gamma0; export as float"
    return f"{expected}: set the tags if these are scaled dB or power, or export it again as float"


def is_floating(dtype: str) -> bool:
    """Return True if rasterio's name of a type is one of floating-point numbers."""
    return dtype in ("float16", "float32", "float64")


def georeference(raster: DatasetReader) -> Georeference:
    """Return the georeference of a raster; a CRS without a place on Earth is no CRS.

    Raises:
      BadFilesError: the transform is not finite, or its pixels have no area.
    """
    if raster.transform == Affine.identity():
        return NO_GEOREFERENCE
    coefficients = tuple(raster.transform)[:6]
    if not np.isfinite(coefficients).all() or raster.transform.determinant == 0:
        raise bad_file(
            raster.name,
            f"found the transform {coefficients}, expected finite numbers and pixels with an area: "
            "correct or remove it (gdal_edit.py -unsetgt)",
        )
    crs = raster.crs.to_string() if raster.crs and _is_on_earth(raster.crs) else ""
    return Georeference(crs, coefficients)


GCPS_ONLY = "ground control points only"
"""Reason of `unplaced_reason`."""


def unplaced_reason(raster: DatasetReader) -> str:
    """Return the reason why `georeference` has no place; "" if it has one."""
    if raster.crs and not _is_on_earth(raster.crs):
        return "a CRS that is neither geographic nor projected"
    if raster.crs and raster.transform != Affine.identity():
        return ""
    return GCPS_ONLY if raster.gcps[0] else "no CRS or no transform"


def _is_on_earth(crs: CRS) -> bool:
    try:
        return crs.is_geographic or crs.is_projected
    except CRSError:
        return False


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


MERCATOR = ("EPSG:3857", "EPSG:3395")
"""CRS with the Mercator projection, whose scale is 1 / cos(latitude)."""


def pixel_spacing(image: Georeference, shape: tuple[int, int]) -> tuple[float, float]:
    """Return the distances between rows and between columns on the ground, in metres.

    They are measured at the centre of the image, and NaN if the CRS is unknown.

    Args:
      image: its position.
      shape: (rows, columns).
    """
    if not image.crs:
        return np.nan, np.nan
    a, b, c, d, e, f = image.transform
    x, y = (p * shape[1] / 2 + q * shape[0] / 2 + r for p, q, r in ((a, b, c), (d, e, f)))
    try:
        crs = CRS.from_string(image.crs)
        if crs.is_geographic:
            north = METRES_PER_DEGREE
            east = north * np.cos(np.radians(y))
        else:
            east = north = crs.linear_units_factor[1]
        if image.crs in MERCATOR:
            _, (latitude,) = transform(crs, "EPSG:4326", [x], [y])
            east = north = north * np.cos(np.radians(latitude))
    except (CRSError, RasterioError):
        return np.nan, np.nan
    return float(np.hypot(b * east, e * north)), float(np.hypot(a * east, d * north))


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
