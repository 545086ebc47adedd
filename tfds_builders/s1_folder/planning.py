"""What a folder of GeoTIFFs is cut into: files, scenes, windows."""

from pathlib import Path
from typing import Any

import numpy as np

from tfds_builders import units, workers
from tfds_builders.patch_builder import Plan
from tfds_builders.problems import BadFilesError, Problem
from tfds_builders.s1_folder import scenes
from tfds_builders.s1_folder.record import read_record
from tfds_builders.s1_folder.scenes import Said, Scene
from tfds_builders.s1_folder.windows import Cut, Survey, border_path, survey
from tfds_builders.workers import Tick

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
    files: list[scenes.File] = []
    problems: list[Problem] = []
    for path in scenes.find_files(root):
        try:
            files.append(scenes.describe_file(root, path))
        except BadFilesError as error:
            problems.extend(error.problems)
    quantity = scenes.common_quantity(files, said)
    found, wrong = scenes.group(root, files, said)
    problems.extend(wrong)
    looked = _survey_all(root, found, cut, said, scratch, processes)
    surveys = {number: one for number, one in looked.items() if isinstance(one, Survey)}
    for one in looked.values():
        problems.extend(() if isinstance(one, Survey) else one)
    items = [_items(number, surveys[number].corners) for number in sorted(surveys)]
    floored = sum(one.floored for one in surveys.values())
    return Plan(
        {"train": np.concatenate([np.empty(0, ITEM), *items])},
        read_record,
        (root, scratch, cut.size, said.nodata, tuple(found)),
        problems,
        {"quantity": quantity, "floored_pixels": floored},
        _notes(files, list(surveys.values()), quantity, cut),
    )


def _survey_all(
    root: Path, found: list[Scene], cut: Cut, said: Said, scratch: Path, processes: int
) -> dict[int, Survey | tuple[Problem, ...]]:
    """The survey of every scene by number, or why it cannot be used."""
    tasks = [
        (number, scene, root, cut, said.nodata, border_path(scratch, number))
        for number, scene in enumerate(found)
    ]
    return dict(
        workers.run(
            _survey_one,
            tasks,
            processes=processes,
            total=len(tasks),
            description="looking at scenes",
        )
    )


def _survey_one(task: Any, tick: Tick) -> tuple[int, Survey | tuple[Problem, ...]]:
    number, scene, root, cut, nodata, border = task
    tick()
    try:
        return number, survey(root, scene, cut, nodata, border)
    except BadFilesError as error:
        return number, error.problems


def _items(number: int, corners: np.ndarray) -> np.ndarray:
    items = np.empty(len(corners), ITEM)
    items["scene"], items["row"], items["column"] = number, corners[:, 0], corners[:, 1]
    return items


def _notes(files: list[scenes.File], surveys: list[Survey], quantity: str, cut: Cut) -> list[str]:
    """What a user would want to be told."""
    windows = sum(one.windows for one in surveys)
    kept = sum(len(one.corners) for one in surveys)
    floored = sum(one.floored for one in surveys)
    notes = [
        f"{len(surveys)} scenes: {kept} of {windows} windows have at most "
        f"{100 * cut.max_nodata:g} % nodata"
    ]
    if quantity == "not stated":
        notes.append("neither the files nor --quantity say whether this is sigma0 or gamma0")
    if floored:
        notes.append(f"{floored} pixels of linear power at or below 0 became {units.FLOOR_DB:g} dB")
    others = [str(file.path) for file in files if not any(file.bands) and len(file.bands) == 1]
    if others:
        shown = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
        notes.append(f"{len(others)} files name no polarisation and were left out: {shown}")
    return notes
