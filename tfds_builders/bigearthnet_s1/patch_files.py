"""Files of BigEarthNet-S1: a folder NAME per patch with NAME_VV.tif and NAME_VH.tif, and lists."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff, units
from tfds_builders.bad_files import bad_file, collect_results
from tfds_builders.geotiff import Georeference
from tfds_builders.zero_regions import border_zeros, zero_or_nodata

SIZE = 120
"""Side of a patch in pixels, each of 10 m."""


class Patch(NamedTuple):
    """Contents of the band files of a patch.

    Attributes:
      backscatter: (120, 120, band) float32 dB, NaN = nodata.
      georeference: position of the patch.
    """

    backscatter: np.ndarray
    georeference: Georeference


def band_files(folder: Path, bands: Sequence[str]) -> list[Path]:
    """Return the path of each band's file, given the folder of a patch."""
    return [folder / f"{folder.name}_{band}.tif" for band in bands]


def read_patch(folder: Path, bands: Sequence[str]) -> Patch:
    """Read the single-band files of a patch.

    Args:
      folder: folder of the patch.
      bands: names of the bands.

    Raises:
      BadFilesError: a file is missing, unreadable, of another shape or type, on another grid, not
        in dB, or nodata everywhere; the error has all such files.
    """
    paths = band_files(folder, bands)
    contents = collect_results(*(partial(read_band, path) for path in paths))
    backscatter = np.stack([values for values, _ in contents], axis=-1)
    first_grid = contents[0][1]
    for path, (_, grid) in zip(paths[1:], contents[1:], strict=True):
        if not geotiff.same_grid(first_grid, grid):
            raise bad_file(
                folder,
                f"found its bands on two grids, {path.name} on {tuple(grid)} and {paths[0].name} "
                f"on {tuple(first_grid)}, expected one grid: copy both again",
            )
    backscatter[border_zeros(zero_or_nodata(backscatter))] = np.nan
    return Patch(backscatter, first_grid)


def read_band(path: Path) -> tuple[np.ndarray, Georeference]:
    """Read the file of a band.

    Returns:
      (120, 120) float32 dB with tagged nodata as NaN, and the georeference.

    Raises:
      BadFilesError: the file is missing, unreadable, of another shape or type, or not in dB.
    """
    if not os.path.isfile(path):  # also where the folder may not be entered
        raise bad_file(
            path,
            "found no such file, expected one for each band: restore it (or the permission to read "
            "its folder), or move the patch folder out of the dataset",
        )
    with geotiff.open_raster(path) as raster:
        shape = (raster.count, *raster.shape)
        if shape != (1, SIZE, SIZE):
            raise bad_file(
                path,
                f"found {shape} (bands, rows, columns), expected (1, {SIZE}, {SIZE}): is this file "
                "of the dataset?",
            )
        values, grid = geotiff.read_band(raster, 1), geotiff.georeference(raster)
    # zeros may be nodata: that depends on both bands
    if reason := units.find_unit_error(units.summarise(values[values != 0]), "dB"):
        raise bad_file(path, reason)
    return values, grid


def find_split_file(patches: Path, name: str, advice: str) -> Path:
    """Return the path of an official file among the patches, beside them, or in a folder `splits`.

    Args:
      patches: folder of the patches.
      name: name of the file.
      advice: alternative to the file, for the error message.

    Raises:
      InputError: the file is in none of these places.
    """
    for folder in (patches, patches / "splits", patches.parent, patches.parent / "splits"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{patches}: found no {name} there, beside it, or in a folder splits, expected the "
        f"official file: put it there, {advice}"
    )
