"""The record of a window of a scene."""

from pathlib import Path

import numpy as np
from rasterio.windows import Window

from tfds_builders import geotiff, records, units
from tfds_builders.s1_folder import scenes
from tfds_builders.s1_folder.windows import border_path, read_window
from tfds_builders.shards import Example


def sources(
    root: Path, scratch: Path, size: int, nodata: float | None, item: tuple[int, int, int]
) -> list[Path]:
    """The files of a window."""
    del size, nodata
    return [root / layer.path for layer in scenes.read(scratch)[item[0]].layers]


def read_record(
    root: Path,
    scratch: Path,
    size: int,
    nodata: float | None,
    item: tuple[int, int, int],
) -> Example:
    """The record of a window.

    Raises:
      BadFilesError: a file cannot be read.
    """
    number, row, column = item
    scene = scenes.read(scratch)[number]
    values = read_window(root, scene, Window(column, row, size, size), nodata)
    values[_border(border_path(scratch, number), row, column, size)] = np.nan
    name = f"{scene.name}_{row}_{column}"
    place = geotiff.of_window(scene.place, row, column)
    return {
        "id": name,
        "backscatter": units.to_db(values, scene.unit),
        "scene": scene.name,
        "corner": np.array([row, column], np.int32),
        **records.place(Path(scene.name).name, place),
    }


def _border(path: Path, row: int, column: int, size: int) -> np.ndarray:
    """The zeros of a window that mean nodata: (size, size)."""
    if not path.exists():
        return np.zeros((size, size), bool)
    rows = np.load(path, mmap_mode="r")[row : row + size]
    return np.unpackbits(rows, axis=1)[:, column : column + size].astype(bool)
