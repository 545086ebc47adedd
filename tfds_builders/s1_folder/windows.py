"""Windows of a scene that become patches: those with little nodata."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfds_builders.bad_files import bad_file
from tfds_builders.s1_folder.measures import BandMeasures
from tfds_builders.s1_folder.scene_reader import SceneReader, ZeroCounts, survey_pixels


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
      zeros: numbers of zeros that became nodata.
      measures: measures of every band.
    """

    corners: np.ndarray
    num_windows: int
    zeros: ZeroCounts
    measures: tuple[BandMeasures, ...]


def survey_scene(reader: SceneReader, settings: WindowSettings) -> SceneSurvey:
    """Find the patches of a scene.

    Args:
      reader: reader of the scene; see `survey_pixels`.
      settings: settings of the windows.

    Raises:
      BadFilesError: the scene is smaller than a patch, cannot be read, or is not backscatter.
    """
    scene = reader.scene
    if min(scene.shape) < settings.size:
        raise bad_file(
            reader.root / scene.layers[0].path,
            f"found {scene.shape} pixels, expected at least {settings.size} a side: choose a "
            "smaller --size",
        )
    pixels = survey_pixels(reader)
    fraction = nodata_fraction(pixels.missing, scene.shape, settings)
    corners = np.argwhere(fraction <= settings.max_nodata) * (settings.size - settings.overlap)
    return SceneSurvey(corners, fraction.size, pixels.zeros, pixels.measures)


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
