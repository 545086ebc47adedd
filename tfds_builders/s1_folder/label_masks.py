"""Masks of classes beside the scenes: GeoTIFFs on the same grid, named after the scenes."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rasterio.io import DatasetReader
from rasterio.windows import Window

from sar_mixmae_jax.data.metadata import NOT_LABELLED
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, BadFilesError, bad_file
from tfds_builders.s1_folder.scenes import Scene


class LabelMasks(NamedTuple):
    """Masks of a folder of scenes.

    Attributes:
      folder: folder of the masks, NAME.tif for the scene NAME; None: there are none.
      classes: names of the values 0, 1, … of a mask.
    """

    folder: Path | None = None
    classes: tuple[str, ...] = ()


NO_MASKS = LabelMasks()


def parse_masks(folder: str, classes: str) -> LabelMasks:
    """Return the masks that flags describe.

    Raises:
      InputError: one of them is missing, or the classes are not two different names or more.
    """
    names = tuple(name.strip() for name in classes.split(",") if name.strip())
    if not folder and not names:
        return NO_MASKS
    if not folder or not 2 <= len(names) <= 127 or len(set(names)) < len(names):
        raise InputError(
            f"--masks={folder} --classes={classes}: expected a folder, and the names of the values "
            "0, 1, … of its masks, at least 2 and at most 127, each once"
        )
    return LabelMasks(Path(folder).absolute(), names)


def mask_path(masks: LabelMasks, scene: Scene) -> Path:
    """Return the path of the mask of a scene."""
    assert masks.folder is not None
    return masks.folder / f"{scene.name}.tif"


def check_masks(masks: LabelMasks, scenes: Sequence[Scene]) -> tuple[list[Scene], list[BadFile]]:
    """Return the scenes with masks of their grid, and the masks that are missing or differ."""
    usable: list[Scene] = []
    wrong: list[BadFile] = []
    for scene in scenes if masks.folder else ():
        path = mask_path(masks, scene)
        try:
            if not path.is_file():
                raise bad_file(
                    path,
                    f"found no such file, expected the mask of the scene {scene.name}: add it, or "
                    "move the scene out of the folder",
                )
            with geotiff.open_raster(path) as raster:
                _check_mask(path, raster, scene)
            usable.append(scene)
        except BadFilesError as error:
            wrong.extend(error.bad_files)
    return (usable if masks.folder else list(scenes)), wrong


def _check_mask(path: Path, raster: DatasetReader, scene: Scene) -> None:
    found = geotiff.georeference(raster)
    if raster.shape != scene.shape or not geotiff.same_grid(found, scene.georeference):
        raise bad_file(
            path,
            f"found {raster.shape} pixels at {found}, expected the grid of its scene, "
            f"{scene.shape} at {scene.georeference}: resample the mask (nearest neighbour)",
        )
    if raster.count != 1 or np.dtype(raster.dtypes[0]).kind not in "iu":
        raise bad_file(
            path,
            f"found {raster.count} bands of {raster.dtypes[0]}, expected one band of integers: "
            "export the classes as numbers",
        )


def read_labels(masks: LabelMasks, scene: Scene, window: Window) -> np.ndarray:
    """Return the labels of a window, (rows, columns) int8; `NOT_LABELLED` where there is none.

    Raises:
      BadFilesError: the mask cannot be read, or holds a number without a class.
    """
    path = mask_path(masks, scene)
    with geotiff.open_raster(path, keep_open=True) as raster:
        values = raster.read(1, window=window, masked=True).astype(np.int64).filled(NOT_LABELLED)
    unknown = np.setdiff1d(values, [NOT_LABELLED, *range(len(masks.classes))])
    if len(unknown):
        raise bad_file(
            path,
            f"found the labels {unknown[:5].tolist()}, expected 0 to {len(masks.classes) - 1} "
            f"({', '.join(masks.classes)}), -1 or nodata: name all classes with --classes, and tag "
            "the value of unlabelled pixels as nodata",
        )
    return values.astype(np.int8)
