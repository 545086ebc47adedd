"""Overviews of a raster, each half the size of the one before, for the copy to a COG.

GDAL computes overviews band by band with a mask for every block, which takes several times as long
as the compression of the raster; here four pixels become one by whole strips.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from rasterio.io import DatasetReader
from rasterio.shutil import copy
from rasterio.windows import Window

Resampling = Literal["mean", "mode"]

STRIP_VALUES = 4 * 2**20
"""Values that are halved at once."""


@contextmanager
def raster_with_overviews(path: Path, resampling: Resampling, smallest: int) -> Iterator[Path]:
    """Yield a virtual raster of a file and its overviews, which exist until the block ends.

    Args:
      path: path of a GeoTIFF, beside which temporary files lie.
      resampling: mean, or most frequent value, of the pixels that are not nodata.
      smallest: side in pixels to which no further overview is made.
    """
    stem = path.name.removesuffix(".partial")
    with ExitStack() as stack:
        overviews = [path]
        with rasterio.open(path) as raster:
            side = max(raster.shape)
        while side > smallest:
            side = -(-side // 2)
            half = path.with_name(f"{stem}.{len(overviews)}.partial")
            stack.callback(half.unlink, missing_ok=True)
            with rasterio.open(overviews[-1]) as raster:
                _write_half(raster, half, resampling)
            overviews.append(half)
        virtual = path.with_name(f"{stem}.vrt.partial")
        stack.callback(virtual.unlink, missing_ok=True)
        copy(path, virtual, driver="VRT")
        tree = ElementTree.parse(virtual)
        for number, band in enumerate(tree.getroot().iter("VRTRasterBand"), start=1):
            for half in overviews[1:]:
                overview = ElementTree.SubElement(band, "Overview")
                ElementTree.SubElement(overview, "SourceFilename").text = str(half.absolute())
                ElementTree.SubElement(overview, "SourceBand").text = str(number)
        tree.write(virtual)
        yield virtual


def _write_half(raster: DatasetReader, path: Path, resampling: Resampling) -> None:
    rows, columns = raster.shape
    profile = {
        "driver": "GTiff",
        "height": -(-rows // 2),
        "width": -(-columns // 2),
        "count": raster.count,
        "dtype": raster.dtypes[0],
        "nodata": raster.nodata,
        "interleave": "band",
        "bigtiff": "if_safer",
    }
    height = 2 * max(1, STRIP_VALUES // (2 * columns * raster.count))
    with rasterio.open(path, "w", **profile) as half:
        for top in range(0, rows, height):
            values = raster.read(window=Window(0, top, columns, min(height, rows - top)))
            halved = halve(values, raster.nodata, resampling)
            half.write(halved, window=Window(0, top // 2, halved.shape[2], halved.shape[1]))


def halve(values: np.ndarray, nodata: float, resampling: Resampling) -> np.ndarray:
    """Return a raster of half the size.

    Args:
      values: (band, row, column); where the number of rows or columns is odd, the last pixels stand
        for fewer.
      nodata: value of pixels without a result, which do not count.
      resampling: mean, or most frequent value, of four pixels.
    """
    odd = [(0, side % 2) for side in values.shape[1:]]
    if any(after for _, after in odd):
        values = np.pad(values, [(0, 0), *odd], constant_values=nodata)
    parts = [values[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    known = [~np.isnan(part) if np.isnan(nodata) else part != nodata for part in parts]
    if resampling == "mode":
        return _mode(parts, known, nodata)
    total, count = np.zeros(parts[0].shape, np.float32), np.zeros(parts[0].shape, np.uint8)
    for part, valid in zip(parts, known, strict=True):
        np.add(total, part, out=total, where=valid)
        count += valid
    with np.errstate(invalid="ignore"):  # 0 / 0
        total /= count
    if values.dtype.kind in "iu":
        np.rint(total, out=total)
    np.copyto(total, nodata, where=count == 0)
    return total.astype(values.dtype, copy=False)


def _mode(parts: list[np.ndarray], known: list[np.ndarray], nodata: float) -> np.ndarray:
    """Return the most frequent of the known values; of several, the first."""
    best = np.full_like(parts[0], nodata)
    votes = np.zeros(best.shape, np.uint8)
    for part, valid in zip(parts, known, strict=True):
        count = np.zeros(best.shape, np.uint8)
        for other in parts:
            count += part == other
        better = valid & (count > votes)
        np.copyto(best, part, where=better)
        np.copyto(votes, count, where=better)
    return best
