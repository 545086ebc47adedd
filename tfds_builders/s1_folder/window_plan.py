"""What a folder of GeoTIFFs is cut into: files, scenes, windows."""

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
from tfds_builders.s1_folder.raster_files import File, describe_file, find_files
from tfds_builders.s1_folder.scenes import Said, Scene
from tfds_builders.s1_folder.windows import Cut, Survey, border_path, read_window, survey
from tfds_builders.shards import Example

NO_SPLIT = "no held-out split"
RUN = 16
"""Neighbouring windows are read together: they share blocks of the file."""
FEW = 100
"""Files that are described before other processes would have started."""
ITEM = np.dtype([("scene", np.int32), ("row", np.int32), ("column", np.int32)])


def plan(root: Path, scratch: Path, said: Said, cut: Cut, processes: int) -> Plan:
    """Looks at every file, and at every pixel once.

    Args:
      root: folder of the files.
      scratch: folder for the masks of zeros that mean nodata.
      said: what the user says where files do not.
      cut: how to cut scenes.
      processes: how many may be used.

    Raises:
      InputError: there are no files, or sigma0 and gamma0 are mixed.
    """
    paths, problems = find_files(root)
    few = len(paths) < FEW
    files, wrong = _each(
        _describe, [(root, path) for path in paths], 1 if few else processes, "files"
    )
    problems.extend(wrong)
    quantity = scenes.common_quantity(files, said)
    found, wrong = scenes.group(root, files, said)
    problems.extend(wrong)
    tasks = [
        (number, scene, root, cut, said.nodata, border_path(scratch, number))
        for number, scene in enumerate(found)
    ]
    surveyed, wrong = _each(_survey, tasks, processes, "scenes")
    problems.extend(wrong)
    surveys: dict[int, Survey] = dict(surveyed)
    items = [_items(number, one.corners) for number, one in surveys.items()]
    scenes.write(found, scratch)
    if not found and not problems:
        raise InputError(
            f"{root}: found {len(files)} GeoTIFFs, none of which names a polarisation, expected VV "
            "and VH in file names or band descriptions, or --bands for files with several bands"
        )
    used = [found[number] for number in surveys]
    return Plan(
        {"train": np.concatenate([np.empty(0, ITEM), *items])},
        read_record,
        sources,
        (root, scratch, cut.size, said.nodata),
        identity=found,
        run_length=RUN,
        bad_files=problems,
        metadata={"quantity": quantity, "caveats": [NO_SPLIT], "pixel_spacing_m": _spacings(used)},
        notes=_notes(files, used, list(surveys.values()), quantity, cut),
    )


def _each(
    function: Callable[[Any, Tick], Any], tasks: list[Any], processes: int, unit: str
) -> tuple[list[Any], list[BadFile]]:
    """The results of all tasks but those that found bad files, in their order; their problems."""
    results: dict[int, Any] = {}
    problems: list[BadFile] = []
    run = partial(
        process_pool.run_tasks, processes=processes, total=len(tasks), description="looking at"
    )
    for number, result in run(partial(_numbered, function), list(enumerate(tasks)), unit=unit):
        if isinstance(result, BadFilesError):
            problems.extend(result.bad_files)
        else:
            results[number] = result
    return [results[number] for number in sorted(results)], problems


def _numbered(
    function: Callable[[Any, Tick], Any], task: tuple[int, Any], tick: Tick
) -> tuple[int, Any]:
    """The number of a task, and its result or what bad files it found."""
    try:
        return task[0], function(task[1], tick)
    except BadFilesError as error:
        return task[0], error


def _describe(task: tuple[Path, Path], tick: Tick) -> File:
    tick()
    return describe_file(*task)


def _survey(task: Any, tick: Tick) -> tuple[int, Survey]:
    number, scene, root, cut, nodata, border = task
    tick()
    return number, survey(root, scene, cut, nodata, border)


def _items(number: int, corners: np.ndarray) -> np.ndarray:
    items = np.empty(len(corners), ITEM)
    items["scene"], items["row"], items["column"] = number, corners[:, 0], corners[:, 1]
    return items


def _notes(
    files: list[File],
    used: list[Scene],
    surveys: list[Survey],
    quantity: str,
    cut: Cut,
) -> list[str]:
    """What a user would want to be told."""
    windows = sum(one.windows for one in surveys)
    kept = sum(len(one.corners) for one in surveys)
    notes = [
        f"{len(surveys)} scenes: {kept} of {windows} windows have at most "
        f"{100 * cut.max_nodata:g} % nodata"
    ]
    if quantity == "not stated":
        notes.append("neither the files nor --quantity say whether this is sigma0 or gamma0")
    spacings = _spacings(used)
    if len(spacings) > 1:
        notes.append(
            f"pixels of {', '.join(f'{spacing:g}' for spacing in spacings)} m are mixed: speckle "
            "and texture differ between them"
        )
    others = [str(file.path) for file in files if file.is_beside]
    if others:
        shown = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        notes.append(f"{len(others)} files beside the backscatter were left out: {shown}")
    return notes


def _spacings(used: list[Scene]) -> list[float]:
    """The sides of pixels, metres to two digits, of scenes that are placed."""
    spacings = [geotiff.pixel_spacing(scene.place) for scene in used]
    return sorted({float(f"{spacing:.2g}") for spacing in spacings if np.isfinite(spacing)})


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
    place = geotiff.window_georeference(scene.place, row, column)
    return {
        "id": name,
        "backscatter": units.to_db(values, scene.unit),
        "scene": scene.name,
        "corner": np.array([row, column], np.int32),
        **records.acquisition_features(Path(scene.name).name, place),
    }


def _border(path: Path, row: int, column: int, size: int) -> np.ndarray:
    """The zeros of a window that mean nodata: (size, size)."""
    if not path.exists():
        return np.zeros((size, size), bool)
    rows = np.load(path, mmap_mode="r")[row : row + size]
    return np.unpackbits(rows, axis=1)[:, column : column + size].astype(bool)
