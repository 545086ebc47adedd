"""Pixels of a scene on the ground: their size, and the grid of another scene."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sar_mixmae_jax.data.metadata import QUANTITIES, DatasetDescription
from sar_mixmae_jax.inference.raster_output import GDAL_SETTINGS, report_raster_errors
from sar_mixmae_jax.inference.scene_pipeline import RowReader
from sar_mixmae_jax.utils.decibel import db_to_linear, linear_to_db
from tfds_builders import geotiff, records
from tfds_builders.bad_files import bad_file
from tfds_builders.s1_folder.scenes import Scene

STRIP_ROWS = 64
"""Rows that are copied at a time when a scene is warped."""
AVERAGED_RATIO = 0.75
"""Pixel size over that of the target grid below which the power of pixels is averaged."""
REPEATED_RATIO = 1.5
"""Pixel size over that of the target grid above which a warning says that pixels are repeated."""
TRAINED_RATIO = 1.2
"""Ratio of the pixel sizes of a scene and of training data above which a warning says so."""

PIXEL_SIZES = {
    "bigearthnet_s1": 10.0,
    "sen1floods11": 10.0,
    "sen12_flood": 10.0,
    "synthetic_s1": 10.0,
    "flood_pairs": 10.0,
}
"""Side in metres of the pixels of datasets, by the first part of their names: for runs whose
description does not hold it."""


@dataclasses.dataclass(frozen=True)
class NamedScene:
    """A scene of the command line.

    Attributes:
      root: folder that its paths are relative to.
      scene: its files.
    """

    root: Path
    scene: Scene

    @property
    def path(self) -> Path:
        """Path of its first file."""
        return self.root / self.scene.layers[0].path

    @property
    def time(self) -> str:
        """Start of the acquisition by its name; "" where unknown."""
        return records.acquisition_time(Path(self.scene.name).name)


def pixel_size_text(scene: Scene) -> str:
    """Return "width x height" of a pixel on the ground in metres, or "unknown"."""
    rows, columns = geotiff.pixel_spacing(scene.georeference, scene.shape)
    return f"{columns:.4g} x {rows:.4g}" if np.isfinite(rows + columns) else "unknown"


def _pixel_side(scene: Scene) -> float:
    """Return the side in metres of a square of the area of a pixel; NaN where unknown."""
    return float(np.sqrt(np.prod(geotiff.pixel_spacing(scene.georeference, scene.shape))))


def trained_pixel_size(dataset: DatasetDescription) -> float | None:
    """Return the side in metres of the pixels of training data; None where unknown."""
    return dataset.pixel_size or PIXEL_SIZES.get(dataset.name.split("/")[0].split(":")[0])


def size_warnings(scene: Scene, trained: float | None) -> list[str]:
    """Return a warning if the pixels of a scene have another size than those of training data.

    Args:
      scene: the scene.
      trained: side of the pixels of the training data, metres; None: unknown.
    """
    side = _pixel_side(scene)
    if trained is None or not np.isfinite(side):
        return []
    if 1 / TRAINED_RATIO <= side / trained <= TRAINED_RATIO:
        return []
    return [
        f"warning: {scene.name} has pixels of {pixel_size_text(scene)} m, and the model was "
        f"trained on {trained:g} m: speckle and texture differ; resample the scene"
    ]


def quantity_warnings(date: NamedScene, trained: str) -> list[str]:
    """Return a warning if a scene holds another quantity than training data.

    Args:
      date: the scene.
      trained: quantity of the training data, "sigma0" or "gamma0"; "": unknown.

    Raises:
      BadFilesError: it is beta0, or its bands differ.
    """
    quantity = date.scene.quantity
    if quantity and quantity not in QUANTITIES:
        raise bad_file(
            date.path,
            f"found {quantity}, expected sigma0 or gamma0 of all bands: calibrate to one of them",
        )
    if not trained or quantity in ("", trained):
        return []
    return [
        f"warning: {date.scene.name} is {quantity}, and the model was trained on {trained}: they "
        f"differ by 0.6 to 1.6 dB from 30 to 46 degrees of incidence; map scenes of {trained}"
    ]


def same_pixels(scene: Scene, grid: Scene) -> bool:
    """Return True if two scenes have the same grid."""
    return scene.shape == grid.shape and geotiff.same_grid(scene.georeference, grid.georeference)


def warp_scene(
    rows: RowReader, date: NamedScene, onto: NamedScene, bands: int, copy_path: Path
) -> RowReader:
    """Return a reader of a scene on the grid of another one.

    The scene is first copied with all of its nodata, and the copy is warped: in dB, or in linear
    power where pixels are averaged.

    Args:
      rows: reader of the scene.
      date: the scene.
      onto: scene whose grid is wanted.
      bands: number of bands that are read.
      copy_path: path of the copy.

    Raises:
      InputError: the scenes share no place.
    """
    source, grid = date.scene, onto.scene
    places = source.georeference, grid.georeference
    if not all(place.crs for place in places):
        raise bad_file(
            date.path,
            f"found {source.shape} pixels and {onto.path.name} of {grid.shape}, expected one grid, "
            "or a CRS in both: georeference them",
        )
    crs = [CRS.from_string(place.crs) for place in places]
    transforms = [Affine(*place.transform) for place in places]
    bounds = array_bounds(*source.shape, transforms[0])
    west, south, east, north = array_bounds(*grid.shape, transforms[1])
    left, bottom, right, top = transform_bounds(*crs, *bounds)
    turns = (0, 360, -360) if crs[1].is_geographic else (0,)
    if right < left:  # across the antimeridian
        right += 360
    shifts = [turn for turn in turns if left + turn < east and right + turn > west]
    if not shifts or bottom >= north or top <= south:
        raise bad_file(
            date.path, f"found no common place with {onto.path.name}: choose scenes that overlap"
        )
    if crs[0].is_geographic and crs[1].is_geographic:
        transforms[0] = Affine.translation(shifts[0], 0) @ transforms[0]
    ratio = _pixel_side(source) / _pixel_side(grid)
    averaged = ratio < AVERAGED_RATIO
    if ratio > REPEATED_RATIO:
        print(
            f"warning: {date.path.name} has pixels of {pixel_size_text(source)} m, which are "
            f"repeated on the {pixel_size_text(grid)} m of {onto.path.name}: speckle differs "
            "between the dates; resample them to the larger pixels",
            file=sys.stderr,
        )
    profile = {
        "driver": "GTiff",
        "height": source.shape[0],
        "width": source.shape[1],
        "count": bands,
        "dtype": "float32",
        "nodata": np.nan,
        "crs": crs[0],
        "transform": transforms[0],
        "bigtiff": "if_safer",
    }
    with report_raster_errors(copy_path), rasterio.Env(**GDAL_SETTINGS):
        with rasterio.open(copy_path, "w", **profile) as copy:
            for first in range(0, source.shape[0], STRIP_ROWS):
                last = min(first + STRIP_ROWS, source.shape[0])
                window = Window(0, first, source.shape[1], last - first)
                values = np.moveaxis(rows(first, last), -1, 0)
                copy.write(db_to_linear(values) if averaged else values, window=window)
        copied = rasterio.open(copy_path)
    warped = WarpedVRT(
        copied,
        crs=crs[1],
        transform=transforms[1],
        height=grid.shape[0],
        width=grid.shape[1],
        resampling=Resampling.average if averaged else Resampling.nearest,
        tolerance=1e-3,  # pixels
    )

    def read(first: int, last: int) -> np.ndarray:
        window = Window(0, first, grid.shape[1], last - first)
        with rasterio.Env(**GDAL_SETTINGS):
            values = np.moveaxis(warped.read(window=window), 0, -1)
        return linear_to_db(values) if averaged else values

    return read
