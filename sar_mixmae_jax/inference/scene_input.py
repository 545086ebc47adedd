"""Scenes that `sar-mixmae map` names: files and folders as `s1_folder` understands them."""

import dataclasses
import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine, array_bounds
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform_bounds
from rasterio.windows import Window

from sar_mixmae_jax.inference.raster_output import GDAL_SETTINGS, report_raster_errors
from sar_mixmae_jax.inference.scene_pipeline import MapScene, RowReader
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff, records
from tfds_builders.bad_files import BadFile, BadFilesError, bad_file
from tfds_builders.s1_folder.file_selection import UserMetadata, select_files
from tfds_builders.s1_folder.raster_files import (
    GEOTIFF_SUFFIXES,
    RasterFile,
    find_files,
    read_file_metadata,
)
from tfds_builders.s1_folder.scene_reader import NodataSettings, SceneReader, survey_pixels
from tfds_builders.s1_folder.scenes import Scene, group_into_scenes

STRIP_ROWS = 64
"""Rows that are copied at a time when a scene is warped."""


@dataclasses.dataclass(frozen=True)
class MapMetadata(UserMetadata):
    """Metadata that the user gives, and the bands that a model needs.

    Attributes:
      model_bands: names of the bands.
    """

    model_bands: tuple[str, ...] = ()

    @property
    def dataset_bands(self) -> tuple[str, ...]:
        """Bands of a scene."""
        return self.model_bands


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


def find_scenes(
    arguments: Sequence[str], user: MapMetadata
) -> tuple[list[NamedScene], list[BadFile]]:
    """Find scenes: all of a folder, or those that files belong to.

    Args:
      arguments: paths of folders and GeoTIFFs; of two files of one scene either is enough.
      user: metadata given by the user, and the bands of the model.

    Returns:
      Scenes in the order of the arguments, each once, and files that cannot be used.

    Raises:
      InputError: a path does not exist, or holds no GeoTIFF.
    """
    scenes: dict[Path, NamedScene] = {}
    bad_files: list[BadFile] = []
    folders: dict[Path, tuple[list[RasterFile], list[BadFile]]] = {}  # read once
    for argument in arguments:
        path = Path(argument).absolute()
        if not path.exists():
            raise InputError(f"{argument}: found no such file or folder, expected a GeoTIFF")
        if path.is_dir():
            root, (paths, wrong) = path, find_files(path)
            files, unreadable = _read_metadata(root, paths, user)
            wrong += unreadable
        else:
            root = path.parent
            if root not in folders:
                folders[root] = _read_metadata(root, _geotiffs(root), user)
            files, unreadable = folders[root]
            if not _is_geotiff(path):
                further = _read_metadata(root, [Path(path.name)], user)
                files, unreadable = files + further[0], unreadable + further[1]
            wrong = [entry for entry in unreadable if Path(entry.file) == path]
            images = {file.image for file in files if root / file.path == path}
            files = [file for file in files if file.image in images]
        selected = select_files(files, user)
        grouped, ungrouped = group_into_scenes(root, selected.used, user)
        wrong += ungrouped
        if not grouped and not wrong:
            reason = selected.unused[0].reason if selected.unused else "it is no backscatter"
            wrong = [BadFile(str(path), f"found no scene ({reason}): name its bands by --bands")]
        bad_files += wrong
        for scene in grouped:
            scenes.setdefault(root / scene.name, NamedScene(root, scene))
    return list(scenes.values()), bad_files


def find_pair(before: str, after: str, user: MapMetadata) -> tuple[list[NamedScene], list[BadFile]]:
    """Find the scenes of two dates; see `find_scenes`.

    Raises:
      InputError: a path does not hold exactly one scene, or the first is not the earlier one.
    """
    dates, bad_files = [], []
    for flag, argument in (("before", before), ("after", after)):
        scenes, wrong = find_scenes([argument], user)
        if len(scenes) != 1:
            reasons = [f"{entry.file}: {entry.reason}" for entry in wrong]
            found = f"found {len(scenes)} scenes in --{flag}={argument}, expected one"
            raise InputError("; ".join([found, *reasons]))
        dates += scenes
        bad_files += wrong
    first, second = dates
    if first.path == second.path:
        raise InputError(f"found {first.path} as --before and --after, expected two scenes")
    if first.time and second.time and first.time >= second.time:
        raise InputError(
            f"found --before of {first.time} and --after of {second.time}, expected the earlier "
            "date first: exchange them"
        )
    return dates, bad_files


def scene_tags(dates: Sequence[NamedScene], nodata: NodataSettings) -> dict[str, str]:
    """Return facts about the files of a scene and their reading for the tags of a map, by name.

    Args:
      dates: a single scene, or one for each date.
      nodata: further nodata.

    Raises:
      BadFilesError: a file is gone.
    """
    stamp = hashlib.sha256()
    for date in dates:
        scene = date.scene
        stamp.update(repr((scene.bands, scene.layers, scene.unit, scene.uses_gcps)).encode())
        for path in SceneReader(date.root, scene, nodata, Path()).paths():
            try:
                status = path.stat()
            except OSError as error:
                raise bad_file(path, f"cannot be read ({error.strerror}): restore it") from error
            stamp.update(repr((path.name, status.st_size, status.st_mtime_ns)).encode())
    before = {"BEFORE": dates[0].scene.name} if len(dates) > 1 else {}
    return {
        **before,
        "SCENE": dates[-1].scene.name,
        "ACQUIRED": ", ".join(date.time or "unknown" for date in dates),
        "INPUT_STAMP": stamp.hexdigest(),
        "NODATA": "none" if nodata.value is None else f"{nodata.value:g}",
        "MASK": nodata.mask.name if nodata.mask else "none",
        "ZERO_BLOCK": f"{nodata.zero_block} px",
        "ERODE_BORDER": f"{nodata.erode_border} px",
    }


def _geotiffs(folder: Path) -> list[Path]:
    """Return the names of the GeoTIFFs in a folder."""
    return [Path(path.name) for path in sorted(folder.iterdir()) if _is_geotiff(path)]


def _is_geotiff(path: Path) -> bool:
    return path.suffix.lower() in GEOTIFF_SUFFIXES and path.name[0] != "."


def _read_metadata(
    root: Path, paths: Sequence[Path], user: UserMetadata
) -> tuple[list[RasterFile], list[BadFile]]:
    files: list[RasterFile] = []
    bad_files: list[BadFile] = []
    for path in paths:
        try:
            files.append(read_file_metadata(root, path, user.band_pattern, use_gcps=user.use_gcps))
        except BadFilesError as error:
            bad_files += error.bad_files
    return files, bad_files


@contextmanager
def open_scenes(
    dates: Sequence[NamedScene], bands: Sequence[str], nodata: NodataSettings, stem: Path
) -> Iterator[MapScene]:
    """Survey scenes, and yield them as one scene to map.

    Every pixel is read once to find the zeros that mean nodata. A date on another grid than the
    first one is warped onto it, to the nearest pixel.

    Args:
      dates: a single scene, or one for each date.
      bands: of the model, in order.
      nodata: further nodata.
      stem: path of the files of the map, beside which masks and a warped date lie meanwhile.

    Raises:
      InputError: a scene cannot be read, lacks a band, is no backscatter, or lies elsewhere.
    """
    grid = dates[0].scene
    with tempfile.TemporaryDirectory(".partial", f".{stem.name}.", stem.parent) as folder:
        readers: list[RowReader] = []
        for number, date in enumerate(dates):
            reader = SceneReader(date.root, date.scene, nodata, Path(folder, f"{number}.npy"))
            missing = [band for band in bands if band not in date.scene.bands]
            if missing:
                raise bad_file(
                    date.path,
                    f"found {', '.join(date.scene.bands)}, expected {', '.join(bands)} for this "
                    f"model: no {', '.join(missing)} belongs to it",
                )
            survey_pixels(reader)
            order = [date.scene.bands.index(band) for band in bands]
            rows: RowReader = partial(_read_rows, reader, order)
            if not _same_pixels(date.scene, grid):
                rows = _warp(rows, date, dates[0], len(bands), Path(folder, f"{number}.tif"))
            readers.append(rows)
        yield MapScene(
            dates[-1].scene.name,
            grid.shape,
            grid.georeference.crs,
            grid.georeference.transform,
            tuple(date.time for date in dates),
            tuple(readers),
            scene_tags(dates, nodata),
        )


def _read_rows(reader: SceneReader, order: list[int], first: int, last: int) -> np.ndarray:
    values = reader.read_db(Window(0, first, reader.scene.shape[1], last - first))
    return values if order == list(range(values.shape[-1])) else values[..., order]


def _same_pixels(scene: Scene, grid: Scene) -> bool:
    return scene.shape == grid.shape and geotiff.same_grid(scene.georeference, grid.georeference)


def _warp(
    rows: RowReader, date: NamedScene, onto: NamedScene, bands: int, copy_path: Path
) -> RowReader:
    """Return a reader of a scene on the grid of another one.

    The scene is first copied in dB with all of its nodata, and the copy is warped.

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
    if left >= east or right <= west or bottom >= north or top <= south:
        raise bad_file(
            date.path, f"found no common place with {onto.path.name}: choose scenes that overlap"
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
                copy.write(np.moveaxis(rows(first, last), -1, 0), window=window)
        copied = rasterio.open(copy_path)
    warped = WarpedVRT(
        copied,
        crs=crs[1],
        transform=transforms[1],
        height=grid.shape[0],
        width=grid.shape[1],
        resampling=Resampling.nearest,
        tolerance=1e-3,  # pixels
    )

    def read(first: int, last: int) -> np.ndarray:
        window = Window(0, first, grid.shape[1], last - first)
        with rasterio.Env(**GDAL_SETTINGS):
            return np.moveaxis(warped.read(window=window), 0, -1)

    return read
