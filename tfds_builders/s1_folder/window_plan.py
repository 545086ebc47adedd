"""Plan of a folder of GeoTIFFs: files, scenes, windows; and the records of the windows."""

import sys
from collections import Counter
from collections.abc import Callable, Sequence
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
from tfds_builders.s1_folder import measures, scenes
from tfds_builders.s1_folder.file_selection import UserMetadata, describe_unused, select_files
from tfds_builders.s1_folder.label_masks import (
    NO_MASKS,
    LabelMasks,
    check_masks,
    mask_path,
    read_labels,
)
from tfds_builders.s1_folder.raster_files import RasterFile, find_files, read_file_metadata
from tfds_builders.s1_folder.scene_reader import NodataSettings, SceneReader, ZeroCounts
from tfds_builders.s1_folder.scenes import Scene
from tfds_builders.s1_folder.windows import SceneSurvey, WindowSettings, survey_scene
from tfds_builders.shards import FLOOR_COUNTS, Example

MASK = "mask"
"""Feature with the class of every pixel."""
NO_SPLIT = "no held-out split"
WINDOWS_PER_RUN = 16
"""Number of neighbouring windows that are read together: they share blocks of the file."""
MIN_PARALLEL_FILES = 100
"""Fewer files are read before other processes would have started."""
ITEM = np.dtype([("scene", np.int32), ("row", np.int32), ("column", np.int32)])


def make_plan(
    root: Path,
    scratch: Path,
    user: UserMetadata,
    nodata: NodataSettings,
    settings: WindowSettings,
    processes: int,
    masks: LabelMasks = NO_MASKS,
) -> Plan:
    """Plan the patches of a folder: reads the metadata of every file, and every pixel once.

    Args:
      root: folder of the files.
      scratch: folder for the masks of zeros that mean nodata.
      user: metadata given by the user.
      nodata: further nodata.
      settings: settings of the windows.
      processes: number of processes to use.
      masks: classes of the pixels.

    Raises:
      InputError: there are no files, or sigma0 and gamma0 are mixed.
    """
    paths, bad_files = find_files(root)
    paths = [path for path in paths if masks.folder not in (root.absolute() / path).parents]
    found, wrong = _run_all(
        _read_file_metadata,
        [(root, path, user) for path in paths],
        1 if len(paths) < MIN_PARALLEL_FILES else processes,
        "files",
    )
    bad_files.extend(wrong)
    files, unused = select_files(list(found.values()), user)
    quantity = scenes.common_quantity(files, user)
    all_scenes, wrong = scenes.group_into_scenes(root, files, user)
    bad_files.extend(wrong)
    all_scenes, wrong = check_masks(masks, all_scenes)
    bad_files.extend(wrong)
    left_out = describe_unused(unused)
    if not all_scenes and not bad_files:
        raise InputError(
            f"{root}: found {len(paths)} GeoTIFFs, none of which names a polarisation of the "
            f"dataset, expected {' and '.join(user.dataset_bands)} in file names or band "
            f"descriptions ({'; '.join(left_out)}): give --band_pattern, such as *_{{band}}_* or "
            "VV=*_co.tif,VH=*_cross.tif, or --bands with the bands of the files"
        )
    tasks = [
        (SceneReader(root, scene, nodata, zeros_path(scratch, number)), settings)
        for number, scene in enumerate(all_scenes)
    ]
    surveys, wrong = _run_all(_survey, tasks, processes, "scenes")
    bad_files.extend(wrong)
    if bad_files and left_out:  # perhaps the missing bands of incomplete images
        print("\n".join(left_out), file=sys.stderr)
    items = [_to_items(number, survey.corners) for number, survey in surveys.items()]
    scenes.write_scenes(all_scenes, scratch)
    used = [all_scenes[number] for number in surveys]
    counts = [ZeroCounts(), *(survey.zeros for survey in surveys.values())]
    zeros = ZeroCounts(*map(sum, zip(*counts, strict=True)))
    return Plan(
        {"train": np.concatenate([np.empty(0, ITEM), *items])},
        read_record,
        source_files,
        (root, scratch, settings.size, nodata, masks),
        identity=all_scenes,
        run_length=WINDOWS_PER_RUN,
        bad_files=bad_files,
        unused_files=unused,
        metadata={
            "quantity": quantity,
            "caveats": [NO_SPLIT],
            "pixel_spacing_m": [list(size) for size in measures.pixel_spacings(used)],
            "zero_pixels": zeros._asdict(),
        },
        notes=[
            *_notes(used, list(surveys.values()), quantity, settings),
            *_describe_zeros(zeros, nodata),
            *left_out,
            *measures.find_warnings(used, [survey.measures for survey in surveys.values()]),
        ],
    )


def _run_all(
    function: Callable[[Any, Tick], Any], tasks: list[Any], processes: int, unit: str
) -> tuple[dict[int, Any], list[BadFile]]:
    """Return the results of the tasks that succeed, by number, and the bad files of the others."""
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
    return {number: results[number] for number in sorted(results)}, bad_files


def _numbered(
    function: Callable[[Any, Tick], Any], task: tuple[int, Any], tick: Tick
) -> tuple[int, Any]:
    """Return the number of a task, and its result or its error about bad files."""
    try:
        return task[0], function(task[1], tick)
    except BadFilesError as error:
        return task[0], error


def _read_file_metadata(task: tuple[Path, Path, UserMetadata], tick: Tick) -> RasterFile:
    root, path, user = task
    tick()
    return read_file_metadata(root, path, user.band_pattern, use_gcps=user.use_gcps)


def _survey(task: tuple[SceneReader, WindowSettings], tick: Tick) -> SceneSurvey:
    tick()
    return survey_scene(*task)


def _to_items(number: int, corners: np.ndarray) -> np.ndarray:
    items = np.empty(len(corners), ITEM)
    items["scene"], items["row"], items["column"] = number, corners[:, 0], corners[:, 1]
    return items


def _notes(
    used: Sequence[Scene], surveys: Sequence[SceneSurvey], quantity: str, settings: WindowSettings
) -> list[str]:
    """Return the notes of the dataset: windows, quantity, unknown places."""
    windows = sum(survey.num_windows for survey in surveys)
    kept = sum(len(survey.corners) for survey in surveys)
    notes = [
        f"{len(surveys)} scenes: {kept} of {windows} windows have at most "
        f"{100 * settings.max_nodata:g} % nodata"
    ]
    if quantity == "not stated":
        notes.append("neither the files nor --quantity say whether this is sigma0 or gamma0")
    unplaced = Counter(scene.unplaced for scene in used if scene.unplaced)
    if unplaced:
        reasons = ", ".join(f"{count} with {reason}" for reason, count in unplaced.items())
        hint = "; --use_gcps warps by the points" if geotiff.GCPS_ONLY in unplaced else ""
        notes.append(f"place unknown of {unplaced.total()} scenes: {reasons}{hint}")
    return notes


def _describe_zeros(zeros: ZeroCounts, nodata: NodataSettings) -> list[str]:
    """Return a note about the pixels that became nodata because of zeros, if there are any."""
    kinds = {
        f"{zeros.border} connected to the frame's edge": zeros.border,
        f"{zeros.blocks} in blocks of at least {nodata.zero_block}x{nodata.zero_block} "
        "pixels": zeros.blocks,
        f"{zeros.scattered} elsewhere, where 0 dB is no measurement": zeros.scattered,
        f"and {zeros.eroded} pixels within {nodata.erode_border} of nodata at the "
        "border": zeros.eroded,
    }
    stated = [text for text, count in kinds.items() if count]
    return [f"zeros that are nodata of their band: {', '.join(stated)}"] if stated else []


def zeros_path(scratch: Path, number: int) -> Path:
    """Path of the mask of the zeros of a scene that mean nodata; absent if there are none."""
    return scratch / f"{number:06d}.npy"


def _reader(root: Path, scratch: Path, nodata: NodataSettings, number: int) -> SceneReader:
    scene = scenes.read_scenes(scratch)[number]
    return SceneReader(root, scene, nodata, zeros_path(scratch, number))


def source_files(
    root: Path,
    scratch: Path,
    size: int,
    nodata: NodataSettings,
    masks: LabelMasks,
    item: tuple[int, int, int],
) -> list[Path]:
    """Return the raw files of a window."""
    del size
    reader = _reader(root, scratch, nodata, item[0])
    return [*reader.paths(), *([mask_path(masks, reader.scene)] if masks.folder else [])]


def read_record(
    root: Path,
    scratch: Path,
    size: int,
    nodata: NodataSettings,
    masks: LabelMasks,
    item: tuple[int, int, int],
) -> Example:
    """Return the record of a window.

    Args:
      root: folder of the files.
      scratch: folder with the scenes and the masks of zeros that mean nodata.
      size: side of the window in pixels.
      nodata: further nodata.
      masks: classes of the pixels.
      item: number of the scene, row and column of the upper left pixel.

    Raises:
      BadFilesError: a file cannot be read, or a label has no class.
    """
    number, row, column = item
    reader = _reader(root, scratch, nodata, number)
    scene = reader.scene
    window = Window(column, row, size, size)
    values = reader.read_measured(window)
    labels = {MASK: read_labels(masks, scene, window)} if masks.folder else {}
    georeference = geotiff.window_georeference(scene.georeference, row, column)
    return {
        "id": f"{scene.name}_{row}_{column}",
        "backscatter": units.to_db(values, scene.unit),
        FLOOR_COUNTS: units.count_floored(values, scene.unit),
        "scene": scene.name,
        "corner": np.array([row, column], np.int32),
        **labels,
        **records.acquisition_features(Path(scene.name).name, georeference),
    }
