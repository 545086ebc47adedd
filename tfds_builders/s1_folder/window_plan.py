"""Plan of a folder of GeoTIFFs: files, scenes, windows; and the records of the windows."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.windows import Window

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff, process_pool, records, units
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.plan import Plan
from tfds_builders.process_pool import Tick
from tfds_builders.s1_folder import scenes
from tfds_builders.s1_folder.raster_files import RasterFile, find_files, read_file_metadata
from tfds_builders.s1_folder.scenes import Scene, UserMetadata
from tfds_builders.s1_folder.windows import (
    SceneSurvey,
    WindowSettings,
    border_path,
    read_window,
    survey_scene,
)
from tfds_builders.shards import Example

NO_SPLIT = "no held-out split"
WINDOWS_PER_RUN = 16
"""Number of neighbouring windows that are read together: they share blocks of the file."""
MIN_PARALLEL_FILES = 100
"""Fewer files are read before other processes would have started."""
ITEM = np.dtype([("scene", np.int32), ("row", np.int32), ("column", np.int32)])


def make_plan(
    root: Path, scratch: Path, user: UserMetadata, settings: WindowSettings, processes: int
) -> Plan:
    """Plan the patches of a folder: reads the metadata of every file, and every pixel once.

    Args:
      root: folder of the files.
      scratch: folder for the masks of zeros that mean nodata.
      user: metadata given by the user.
      settings: settings of the windows.
      processes: number of processes to use.

    Raises:
      InputError: there are no files, or sigma0 and gamma0 are mixed.
    """
    paths, bad_files = find_files(root)
    files, wrong = _run_all(
        _read_file_metadata,
        [(root, path) for path in paths],
        1 if len(paths) < MIN_PARALLEL_FILES else processes,
        "files",
    )
    bad_files.extend(wrong)
    files, left_out = scenes.select_files(files, user)
    quantity = scenes.common_quantity(files, user)
    all_scenes, wrong = scenes.group_into_scenes(root, files, user)
    bad_files.extend(wrong)
    tasks = [
        (number, scene, root, settings, user.nodata, border_path(scratch, number))
        for number, scene in enumerate(all_scenes)
    ]
    numbered_surveys, wrong = _run_all(_survey, tasks, processes, "scenes")
    bad_files.extend(wrong)
    surveys: dict[int, SceneSurvey] = dict(numbered_surveys)
    items = [_to_items(number, survey.corners) for number, survey in surveys.items()]
    scenes.write_scenes(all_scenes, scratch)
    if not all_scenes and not bad_files:
        raise InputError(
            f"{root}: found {len(paths)} GeoTIFFs, none of which names a polarisation of the "
            f"dataset, expected {' and '.join(user.dataset_bands)} in file names or band "
            "descriptions, or --bands with the bands of the files"
        )
    used = [all_scenes[number] for number in surveys]
    return Plan(
        {"train": np.concatenate([np.empty(0, ITEM), *items])},
        read_record,
        source_files,
        (root, scratch, settings.size, user.nodata),
        identity=all_scenes,
        run_length=WINDOWS_PER_RUN,
        bad_files=bad_files,
        metadata={"quantity": quantity, "caveats": [NO_SPLIT], "pixel_spacing_m": _spacings(used)},
        notes=_notes(files, left_out, used, list(surveys.values()), quantity, settings),
    )


def _run_all(
    function: Callable[[Any, Tick], Any], tasks: list[Any], processes: int, unit: str
) -> tuple[list[Any], list[BadFile]]:
    """Return the results of the tasks that succeed, in order, and the bad files of the others."""
    results: dict[int, Any] = {}
    bad_files: list[BadFile] = []
    run = partial(
        process_pool.run_tasks, processes=processes, total=len(tasks), description="reading"
    )
    for number, result in run(partial(_numbered, function), list(enumerate(tasks)), unit=unit):
        if isinstance(result, BadFilesError):
            bad_files.extend(result.bad_files)
        else:
            results[number] = result
    return [results[number] for number in sorted(results)], bad_files


def _numbered(
    function: Callable[[Any, Tick], Any], task: tuple[int, Any], tick: Tick
) -> tuple[int, Any]:
    """Return the number of a task, and its result or its error about bad files."""
    try:
        return task[0], function(task[1], tick)
    except BadFilesError as error:
        return task[0], error


def _read_file_metadata(task: tuple[Path, Path], tick: Tick) -> RasterFile:
    tick()
    return read_file_metadata(*task)


def _survey(task: Any, tick: Tick) -> tuple[int, SceneSurvey]:
    number, scene, root, settings, nodata, border = task
    tick()
    return number, survey_scene(root, scene, settings, nodata, border)


def _to_items(number: int, corners: np.ndarray) -> np.ndarray:
    items = np.empty(len(corners), ITEM)
    items["scene"], items["row"], items["column"] = number, corners[:, 0], corners[:, 1]
    return items


def _notes(
    files: list[RasterFile],
    left_out: list[str],
    used: list[Scene],
    surveys: list[SceneSurvey],
    quantity: str,
    settings: WindowSettings,
) -> list[str]:
    """Return the notes of the dataset: windows, quantity, pixel spacing, files left out."""
    windows = sum(survey.num_windows for survey in surveys)
    kept = sum(len(survey.corners) for survey in surveys)
    notes = [
        f"{len(surveys)} scenes: {kept} of {windows} windows have at most "
        f"{100 * settings.max_nodata:g} % nodata"
    ]
    if quantity == "not stated":
        notes.append("neither the files nor --quantity say whether this is sigma0 or gamma0")
    spacings = _spacings(used)
    if len(spacings) > 1:
        notes.append(
            f"pixels of {', '.join(f'{spacing:g}' for spacing in spacings)} m are mixed: speckle "
            "and texture differ between them"
        )
    auxiliary = [str(file.path) for file in files if file.is_auxiliary]
    if auxiliary:
        notes.append(_left_out(auxiliary, "beside the backscatter"))
    if left_out:
        notes.append(_left_out(left_out, "of bands that --bands does not name"))
    return notes


def _left_out(paths: list[str], kind: str) -> str:
    shown = ", ".join(paths[:5]) + (" …" if len(paths) > 5 else "")
    return f"{len(paths)} files {kind} were left out: {shown}"


def _spacings(used: list[Scene]) -> list[float]:
    """Return the pixel spacings of the georeferenced scenes, in metres, to two digits."""
    spacings = [geotiff.pixel_spacing(scene.georeference) for scene in used]
    return sorted({float(f"{spacing:.2g}") for spacing in spacings if np.isfinite(spacing)})


def source_files(
    root: Path, scratch: Path, size: int, nodata: float | None, item: tuple[int, int, int]
) -> list[Path]:
    """Return the raw files of a window."""
    del size, nodata
    return [root / layer.path for layer in scenes.read_scenes(scratch)[item[0]].layers]


def read_record(
    root: Path,
    scratch: Path,
    size: int,
    nodata: float | None,
    item: tuple[int, int, int],
) -> Example:
    """Return the record of a window.

    Args:
      root: folder of the files.
      scratch: folder with the scenes and the masks of zeros that mean nodata.
      size: side of the window in pixels.
      nodata: number that means nodata besides NaN and the tagged value.
      item: number of the scene, row and column of the upper left pixel.

    Raises:
      BadFilesError: a file cannot be read.
    """
    number, row, column = item
    scene = scenes.read_scenes(scratch)[number]
    values = read_window(root, scene, Window(column, row, size, size), nodata)
    values[_read_border(border_path(scratch, number), row, column, size)] = np.nan
    name = f"{scene.name}_{row}_{column}"
    georeference = geotiff.window_georeference(scene.georeference, row, column)
    return {
        "id": name,
        "backscatter": units.to_db(values, scene.unit),
        "scene": scene.name,
        "corner": np.array([row, column], np.int32),
        **records.acquisition_features(Path(scene.name).name, georeference),
    }


def _read_border(path: Path, row: int, column: int, size: int) -> np.ndarray:
    """Return the (size, size) mask of the zeros of a window that mean nodata."""
    if not path.exists():
        return np.zeros((size, size), bool)
    rows = np.load(path, mmap_mode="r")[row : row + size]
    return np.unpackbits(rows, axis=1)[:, column : column + size].astype(bool)
