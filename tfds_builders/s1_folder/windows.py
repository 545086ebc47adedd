"""Windows of a scene that become patches: read once in strips of rows, to count nodata."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.windows import Window

from tfds_builders import geotiff, units
from tfds_builders.bad_files import bad_file
from tfds_builders.s1_folder.scenes import Scene
from tfds_builders.zero_regions import Strips, border_zeros_in_strips, zero_or_nodata

STRIP_PIXELS = 2 * 2**20
"""Number of pixels per band that are read at once."""


class WindowSettings(NamedTuple):
    """Settings of the windows that scenes are cut into.

    Attributes:
      size: side of a patch in pixels.
      overlap: overlap of neighbouring patches in pixels.
      max_nodata: largest fraction of pixels of a patch that are nodata in at least one band.
    """

    size: int
    overlap: int
    max_nodata: float


class SceneSurvey(NamedTuple):
    """Patches of a scene.

    Attributes:
      corners: (patches, 2) row and column of the upper left pixel of every patch.
      num_windows: number of windows without the limit on nodata.
    """

    corners: np.ndarray
    num_windows: int


def survey_scene(
    root: Path, scene: Scene, settings: WindowSettings, nodata: float | None, border: Path
) -> SceneSurvey:
    """Find the patches of a scene.

    Args:
      root: folder of the files.
      scene: the scene.
      settings: settings of the windows.
      nodata: number that means nodata besides NaN and the tagged value.
      border: path to write the mask of the zeros that mean nodata to, as packed bits of every row;
        not written if there are none.

    Raises:
      BadFilesError: the scene is smaller than a patch, cannot be read, or is not backscatter.
    """
    if min(scene.shape) < settings.size:
        raise bad_file(
            root / scene.layers[0].path,
            f"found {scene.shape} pixels, expected at least {settings.size} a side: choose a "
            "smaller --size",
        )
    nan, zero = Strips(), Strips()
    summaries = [units.EMPTY_SUMMARY] * len(scene.layers)
    for values in read_strips(root, scene, nodata):  # (rows, columns, band)
        all_zero = zero_or_nodata(values)
        nan.append(np.isnan(values).any(-1))
        zero.append(all_zero)
        for number in range(len(scene.layers)):
            measured = values[..., number][~all_zero]  # zeros may be nodata
            summaries[number] += units.summarise(measured)
    for layer, summary in zip(scene.layers, summaries, strict=True):
        if reason := units.find_unit_error(summary, scene.unit):
            raise bad_file(root / layer.path, reason)
    outside = border_zeros_in_strips(zero)
    if any(strip.any() for strip in outside):
        np.save(border, np.concatenate([np.packbits(strip, axis=1) for strip in outside]))
    missing = (strip | zeros for strip, zeros in zip(nan, outside, strict=True))
    fraction = nodata_fraction(missing, scene.shape, settings)
    corners = np.argwhere(fraction <= settings.max_nodata) * (settings.size - settings.overlap)
    return SceneSurvey(corners, fraction.size)


def read_strips(root: Path, scene: Scene, nodata: float | None) -> Iterator[np.ndarray]:
    """Yield a scene from top to bottom: (rows, columns, band) float32 in its unit, NaN = nodata.

    Raises:
      BadFilesError: a file cannot be read.
    """
    rows, columns = scene.shape
    height = max(1, STRIP_PIXELS // columns)
    for top in range(0, rows, height):
        window = Window(0, top, columns, min(height, rows - top))
        yield read_window(root, scene, window, nodata)


def read_window(root: Path, scene: Scene, window: Window, nodata: float | None) -> np.ndarray:
    """Return a window of a scene: (rows, columns, band) float32 in its unit, NaN = nodata.

    Raises:
      BadFilesError: a file cannot be read.
    """
    bands = []
    for layer in scene.layers:
        with geotiff.open_raster(root / layer.path, keep_open=True) as raster:
            bands.append(geotiff.read_band(raster, layer.number, window, nodata))
    return np.stack(bands, axis=-1)


def nodata_fraction(
    missing: Iterable[np.ndarray], shape: tuple[int, int], settings: WindowSettings
) -> np.ndarray:
    """Return the fraction of nodata in every window.

    Windows start at multiples of size - overlap; pixels beyond the last window are not used.

    Args:
      missing: strips of a mask from top to bottom, True = nodata.
      shape: (rows, columns) of the scene.
      settings: size and overlap of the windows.

    Returns:
      (rows of windows, columns of windows) fractions.
    """
    stride = settings.size - settings.overlap
    tops, lefts = (np.arange(0, length - settings.size + 1, stride) for length in shape)
    counts = np.zeros((len(tops), len(lefts)), np.int64)
    row = 0
    for strip in missing:
        sums = np.pad(np.cumsum(strip, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        by_row = sums[:, lefts + settings.size] - sums[:, lefts]  # (rows, columns of windows)
        above = np.pad(np.cumsum(by_row, axis=0, dtype=np.int64), ((1, 0), (0, 0)))
        first = np.clip(tops - row, 0, len(strip))
        last = np.clip(tops + settings.size - row, 0, len(strip))
        counts += above[last] - above[first]
        row += len(strip)
    return counts / settings.size**2


def border_path(scratch: Path, number: int) -> Path:
    """Path of the mask of the zeros of a scene that mean nodata; absent if there are none."""
    return scratch / f"{number:06d}.npy"
