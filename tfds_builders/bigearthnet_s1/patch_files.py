"""A patch as BigEarthNet-S1 stores it: a folder NAME with NAME_VV.tif and NAME_VH.tif."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff, units
from tfds_builders.bad_files import bad_file, collect_results
from tfds_builders.geotiff import Georeference, border_zeros, zero_or_nodata

SIZE = 120
"""Side of a patch, pixels of 10 m."""


class Patch(NamedTuple):
    """What the band files of a patch hold.

    Attributes:
      backscatter: (120, 120, band) float32 dB, NaN = nodata.
      place: where it lies.
    """

    backscatter: np.ndarray
    place: Georeference


def band_files(folder: Path, bands: Sequence[str]) -> list[Path]:
    """The file of each band of the patch in `folder`."""
    return [folder / f"{folder.name}_{band}.tif" for band in bands]


def read_patch(folder: Path, bands: Sequence[str]) -> Patch:
    """Reads one single-band file for each band of the patch in `folder`.

    Raises:
      BadFilesError: a file is missing, unreadable, of another shape or type, on another grid,
        holds no dB, or is nodata everywhere; of all files at once.
    """
    paths = band_files(folder, bands)
    read = collect_results(*(partial(read_band, path) for path in paths))
    backscatter = np.stack([values for values, _ in read], axis=-1)
    place = read[0][1]
    for path, (_, other) in zip(paths[1:], read[1:], strict=True):
        if not geotiff.same_grid(place, other):
            raise bad_file(
                folder,
                f"found its bands on two grids, {path.name} on {tuple(other)} and {paths[0].name} "
                f"on {tuple(place)}, expected one grid: copy both again",
            )
    backscatter[border_zeros(zero_or_nodata(backscatter))] = np.nan
    return Patch(backscatter, place)


def read_band(path: Path) -> tuple[np.ndarray, Georeference]:
    """Reads a band as (120, 120) float32, tagged nodata as NaN, and where it lies.

    Raises:
      BadFilesError: the file is missing or unreadable, of another shape or type, or holds no dB.
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
        values, place = geotiff.read_band(raster, 1), geotiff.georeference(raster)
    # zeros may be nodata, which only both bands together tell
    if wrong := units.find_unit_error(units.summarise(values[values != 0]), "dB"):
        raise bad_file(path, wrong)
    return values, place


def find_split_file(patches: Path, name: str, advice: str) -> Path:
    """An official file: among the patches, beside them, or in a folder `splits` there.

    Args:
      patches: folder of the patches.
      name: of the file.
      advice: what else can be done where it is missing.

    Raises:
      InputError: it is in none of these places.
    """
    for folder in (patches, patches / "splits", patches.parent, patches.parent / "splits"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{patches}: found no {name} there, beside it, or in a folder splits, expected the "
        f"official file: put it there, {advice}"
    )
