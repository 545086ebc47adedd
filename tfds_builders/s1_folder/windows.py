"""Where a scene has patches: looks at it once, in strips of rows, and counts nodata."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.windows import Window

from sar_mixmae_jax.data.metadata import BANDS
from tfds_builders import geotiff, units
from tfds_builders.bad_files import bad_file
from tfds_builders.geotiff import Strips, border_zeros_in_strips, zero_or_nodata
from tfds_builders.s1_folder.scenes import Scene

STRIP_PIXELS = 2 * 2**20
"""Read at once, in each band."""


class Cut(NamedTuple):
    """How scenes are cut.

    Attributes:
      size: side of a patch in pixels.
      overlap: of neighbours, pixels.
      max_nodata: largest share of a patch's pixels without a measurement in some band.
    """

    size: int
    overlap: int
    max_nodata: float


class Survey(NamedTuple):
    """What a scene holds.

    Attributes:
      corners: (patches, 2) row and column of the upper left pixel of every patch.
      windows: how many there would be without a limit on nodata.
    """

    corners: np.ndarray
    windows: int


def survey(root: Path, scene: Scene, cut: Cut, nodata: float | None, border: Path) -> Survey:
    """Finds the patches of a scene.

    Args:
      root: folder that paths are below.
      scene: to look at.
      cut: how to cut it.
      nodata: a value that means nodata besides NaN and the tagged one.
      border: where to write the mask of the zeros that mean nodata, as packed bits of every row;
        nothing is written where there are none.

    Raises:
      BadFilesError: it is smaller than a patch, cannot be read, or holds no backscatter.
    """
    if min(scene.shape) < cut.size:
        raise bad_file(
            root / scene.layers[0].path,
            f"found {scene.shape} pixels, expected at least {cut.size} a side: choose a smaller "
            "--size",
        )
    nan, zero = Strips(), Strips()
    summaries = [units.EMPTY_SUMMARY] * len(BANDS)
    for values in read_strips(root, scene, nodata):  # (rows, columns, band)
        all_zero = zero_or_nodata(values)
        nan.append(np.isnan(values).any(-1))
        zero.append(all_zero)
        for number in range(len(BANDS)):
            measured = values[..., number][~all_zero]  # zeros may be nodata, and tell no units
            summaries[number] += units.summarise(measured)
    for layer, summary in zip(scene.layers, summaries, strict=True):
        if wrong := units.find_unit_error(summary, scene.unit):
            raise bad_file(root / layer.path, wrong)
    outside = border_zeros_in_strips(zero)
    if any(strip.any() for strip in outside):
        np.save(border, np.concatenate([np.packbits(strip, axis=1) for strip in outside]))
    missing = (one | other for one, other in zip(nan, outside, strict=True))
    share = nodata_share(missing, scene.shape, cut)
    corners = np.argwhere(share <= cut.max_nodata) * (cut.size - cut.overlap)
    return Survey(corners, share.size)


def read_strips(root: Path, scene: Scene, nodata: float | None) -> Iterator[np.ndarray]:
    """A scene from top to bottom: (rows, columns, band) float32 in its unit, NaN = nodata.

    Raises:
      BadFilesError: a file cannot be read.
    """
    rows, columns = scene.shape
    height = max(1, STRIP_PIXELS // columns)
    for top in range(0, rows, height):
        window = Window(0, top, columns, min(height, rows - top))
        yield read_window(root, scene, window, nodata)


def read_window(root: Path, scene: Scene, window: Window, nodata: float | None) -> np.ndarray:
    """A window of a scene: (rows, columns, band) float32 in its unit, NaN = nodata.

    Raises:
      BadFilesError: a file cannot be read.
    """
    bands = []
    for layer in scene.layers:
        with geotiff.open_raster(root / layer.path, keep_open=True) as raster:
            bands.append(geotiff.read_band(raster, layer.number, window, nodata))
    return np.stack(bands, axis=-1)


def nodata_share(missing: Iterable[np.ndarray], shape: tuple[int, int], cut: Cut) -> np.ndarray:
    """Share of nodata in every window: (rows of windows, columns of windows).

    Windows start at multiples of size - overlap; what is left at the right and below is not used.

    Args:
      missing: strips from top to bottom, True = nodata.
      shape: of the scene.
      cut: size and overlap of the windows.
    """
    stride = cut.size - cut.overlap
    tops, lefts = (np.arange(0, length - cut.size + 1, stride) for length in shape)
    counts = np.zeros((len(tops), len(lefts)), np.int64)
    row = 0
    for strip in missing:
        sums = np.pad(np.cumsum(strip, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        by_row = sums[:, lefts + cut.size] - sums[:, lefts]  # (rows, columns of windows)
        above = np.pad(np.cumsum(by_row, axis=0, dtype=np.int64), ((1, 0), (0, 0)))
        first = np.clip(tops - row, 0, len(strip))
        last = np.clip(tops + cut.size - row, 0, len(strip))
        counts += above[last] - above[first]
        row += len(strip)
    return counts / cut.size**2


def border_path(scratch: Path, number: int) -> Path:
    """The mask of the zeros of a scene that mean nodata, if it has any."""
    return scratch / f"{number:06d}.npy"
