"""Reading Sentinel-1 bands from GeoTIFFs, and refusing what is not what it should be."""

import logging
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.transform import Affine
from scipy.ndimage import label

from sar_mixmae_jax.errors import InputError, first_line

logging.getLogger("rasterio").setLevel(logging.CRITICAL)  # what matters of it is in our errors

PLAUSIBLE_DB = (-90.0, 50.0)
"""Backscatter outside of this range, in dB, is not a measurement (-72 to +35 occur)."""


def find_bands(folder: Path, bands: Sequence[str]) -> dict[str, Path]:
    """The files `NAME_<BAND>.tif` of a patch folder NAME, by band.

    Raises:
      InputError: a band has no file.
    """
    paths = {band: folder / f"{folder.name}_{band}.tif" for band in bands}
    for path in paths.values():
        if not path.is_file():
            raise InputError(
                f"{path}: found no such file, expected one for each of {', '.join(bands)}: restore "
                "it, or move the patch folder out of the dataset"
            )
    return paths


def read_patch(paths: Mapping[str, Path], *, size: int, unit: str) -> np.ndarray:
    """Reads one single-band file per band.

    Args:
      paths: file of each band, in the order wanted.
      size: expected side in pixels.
      unit: what the files hold, "dB" or "linear" power.

    Returns:
      (size, size, bands) float32 in the unit of the files. NaN = nodata: NaN in the file, the
      tagged value, and zeros in all bands that connect to the edge.

    Raises:
      InputError: a file is unreadable, of another shape or type, holds another unit, or is nodata
        everywhere.
    """
    patch = np.stack([read_band(path, size=size) for path in paths.values()], axis=-1)
    patch[_zero_border((patch == 0).all(-1))] = np.nan
    for number, path in enumerate(paths.values()):
        if np.isnan(patch[..., number]).all():
            raise InputError(
                f"{path}: found nodata only, expected measurements: move the patch folder out of "
                "the dataset"
            )
        check_unit(patch[..., number], unit, str(path))
    return patch


def _zero_border(zero: np.ndarray) -> np.ndarray:
    """The zeros that connect to the edge: nodata of files without a tag, and no backscatter."""
    regions, _ = label(zero)
    edge = np.concatenate([regions[0], regions[-1], regions[:, 0], regions[:, -1]])
    return np.isin(regions, np.setdiff1d(edge, 0))


def read_band(path: Path, *, size: int) -> np.ndarray:
    """Reads a single-band float GeoTIFF as (size, size) float32, tagged nodata as NaN.

    Raises:
      InputError: the file is unreadable, or its shape or type is another.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="GTiff") as raster:
                shape, dtype = (raster.count, *raster.shape), raster.dtypes[0]
                if shape != (1, size, size):
                    raise InputError(
                        f"{path}: found {shape} (bands, rows, columns), expected "
                        f"(1, {size}, {size}): is this file of the dataset?"
                    )
                if not np.issubdtype(np.dtype(dtype), np.floating):
                    raise InputError(
                        f"{path}: found {dtype} values, expected floating-point backscatter: "
                        "integers have lost the fractions of a dB; export it again as float"
                    )
                values = raster.read(1).astype(np.float32)
                nodata = raster.nodata
    except (RasterioError, OSError) as error:
        raise InputError(
            f"{path}: cannot be read as a GeoTIFF ({first_line(error)}): download or copy it again"
        ) from error
    if nodata is not None and not np.isnan(nodata):
        values[values == np.float32(nodata)] = np.nan
    return values


def check_unit(values: np.ndarray, unit: str, source: str) -> None:
    """Refuses linear power where dB is expected, the reverse, and what cannot be backscatter.

    Linear power is never far below 0 (noise subtraction leaves at most a few hundredths), and of a
    patch in dB at least a hundredth is below -1 dB.

    Args:
      values: NaN = nodata, at least one value.
      unit: what is expected, "dB" or "linear".
      source: for the message.

    Raises:
      InputError: the values are of another unit, or implausible.
    """
    low, median, high = (float(f(values)) for f in (np.nanmin, np.nanmedian, np.nanmax))
    seen = f"{source}: found values from {low:.4g} to {high:.4g} (median {median:.4g})"
    if not np.isfinite((low, high)).all():
        raise InputError(
            f"{seen}, expected finite numbers: mark nodata as NaN or by the nodata tag"
        )
    looks_linear = np.nanpercentile(values, 1) > -1.0
    if unit == "linear":
        if not looks_linear:
            raise InputError(f"{seen}, which is dB, expected linear power: say that the unit is dB")
    elif looks_linear:
        raise InputError(
            f"{seen}, which is linear power, expected dB: convert with 10 log10(power)"
        )
    elif low < PLAUSIBLE_DB[0] or high > PLAUSIBLE_DB[1]:
        raise InputError(
            f"{seen}, expected backscatter between {PLAUSIBLE_DB[0]:g} and {PLAUSIBLE_DB[1]:g} dB: "
            "mark nodata as NaN or by the nodata tag"
        )


def write_band(path: Path, values: np.ndarray, **profile: Any) -> None:
    """Writes a (rows, columns) array as a GeoTIFF, by default of 10 m pixels in UTM zone 33N.

    Args:
      path: of the file.
      values: of any type that GeoTIFF knows.
      **profile: rasterio's settings, such as nodata or crs, instead of the defaults.
    """
    settings = {
        "driver": "GTiff",
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": Affine(10.0, 0.0, 404_400.0, 0.0, -10.0, 5_342_400.0),
        **profile,
    }
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(values, 1)
