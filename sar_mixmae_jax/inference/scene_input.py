"""Scenes that `sar-mixmae map` names: files and folders as `s1_folder` understands them."""

import dataclasses
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from rasterio.windows import Window

from sar_mixmae_jax.inference.raster_output import Grid
from sar_mixmae_jax.inference.scene_grid import (
    NamedScene,
    pixel_size_text,
    same_pixels,
    warp_scene,
)
from sar_mixmae_jax.inference.scene_pipeline import MapScene, RowReader
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile, BadFilesError, bad_file
from tfds_builders.s1_folder.file_selection import UserMetadata, select_files
from tfds_builders.s1_folder.measures import find_warnings
from tfds_builders.s1_folder.raster_files import (
    GEOTIFF_SUFFIXES,
    RasterFile,
    find_files,
    read_file_metadata,
)
from tfds_builders.s1_folder.scene_reader import NodataSettings, SceneReader, survey_pixels
from tfds_builders.s1_folder.scenes import group_into_scenes


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
      InputError: a path does not hold exactly one scene, the first is not the earlier one, or they
        hold different quantities.
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
    if first.scene.quantity and second.scene.quantity not in ("", first.scene.quantity):
        raise InputError(
            f"found --before of {first.scene.quantity} and --after of {second.scene.quantity}, "
            "expected one quantity: calibrate both alike, or give --quantity where names are wrong"
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
        "PIXEL_SIZE_M": pixel_size_text(dates[0].scene),
        "QUANTITY": ", ".join(date.scene.quantity or "not stated" for date in dates),
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
    first one is warped onto it: to the nearest pixel, or to the mean power of smaller pixels.
    Warnings about implausible values and pixel sizes are printed.

    Args:
      dates: a single scene, or one for each date.
      bands: names of the bands of the model, in order.
      nodata: further nodata.
      stem: path of the files of the map, beside which masks and a warped date lie meanwhile.

    Raises:
      InputError: a scene cannot be read, lacks a band, is no backscatter, or lies elsewhere.
    """
    grid = dates[0].scene
    with tempfile.TemporaryDirectory(".partial", f".{stem.name}.", stem.parent) as folder:
        readers: list[RowReader] = []
        empty = False
        for number, date in enumerate(dates):
            reader = SceneReader(date.root, date.scene, nodata, Path(folder, f"{number}.npy"))
            missing = [band for band in bands if band not in date.scene.bands]
            if missing:
                raise bad_file(
                    date.path,
                    f"found {', '.join(date.scene.bands)}, expected {', '.join(bands)} for this "
                    f"model: no {', '.join(missing)} belongs to it",
                )
            survey = survey_pixels(reader, may_be_empty=True)
            empty |= any(np.isinf(band.minimum) for band in survey.measures)
            for warning in find_warnings([date.scene], [survey.measures]):
                print(warning, file=sys.stderr)
            order = [date.scene.bands.index(band) for band in bands]
            rows: RowReader = partial(_read_rows, reader, order)
            if not same_pixels(date.scene, grid):
                rows = warp_scene(rows, date, dates[0], len(bands), Path(folder, f"{number}.tif"))
            readers.append(rows)
        yield MapScene(
            dates[-1].scene.name,
            Grid(grid.shape, *grid.georeference),
            tuple(date.time for date in dates),
            tuple(readers),
            scene_tags(dates, nodata),
            empty,
        )


def _read_rows(reader: SceneReader, order: list[int], first: int, last: int) -> np.ndarray:
    values = reader.read_db(Window(0, first, reader.scene.shape[1], last - first))
    return values if order == list(range(values.shape[-1])) else values[..., order]
