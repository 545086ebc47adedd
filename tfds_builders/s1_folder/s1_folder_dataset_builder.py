"""Patches cut from any folder of analysis-ready Sentinel-1 GeoTIFFs, georeference kept."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from rasterio.windows import Window

from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.errors import InputError, look_up
from tfds_builders import geotiff, records, units, workers
from tfds_builders.patch_builder import PatchBuilder, Plan
from tfds_builders.problems import BadFilesError, Problem
from tfds_builders.s1_folder import scenes
from tfds_builders.s1_folder.scenes import Said, Scene
from tfds_builders.s1_folder.windows import Cut, Survey, read_window, survey
from tfds_builders.shards import Example
from tfds_builders.workers import Tick

QUANTITIES = {"sigma0": "sigma0", "gamma0": "gamma0"}
ITEM = np.dtype([("scene", np.int32), ("row", np.int32), ("column", np.int32)])


@dataclasses.dataclass
class Config(records.PatchConfig):
    """How the files are read and cut.

    Attributes:
      bands: what the bands of files are, in their order, where the files do not say.
      unit: of the files, where they do not say.
      quantity: sigma0 or gamma0, where the files do not say.
      nodata: a value that means nodata, besides NaN and the tagged one; empty: none.
      size: side of a patch in pixels.
      overlap: of neighbouring patches, pixels.
      max_nodata: largest share of nodata in a patch.
    """

    bands: str = records.option("", "bands of a file in their order, such as VV,VH")
    unit: str = records.option("", "of the files: dB or linear")
    quantity: str = records.option("", "of the files: sigma0 or gamma0")
    nodata: str = records.option("", "a value that means nodata besides NaN and the tagged one")
    size: int = records.option(128, "side of a patch in pixels")
    overlap: int = records.option(0, "of neighbouring patches, pixels")
    max_nodata: float = records.option(0.1, "largest share of nodata in a patch")


class Builder(PatchBuilder):
    """One split, `train`: neighbouring patches are alike, and a random split of them would leak."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Folders of GeoTIFFs."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="default", description="files that say themselves what they hold, 128 px")
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "name the folder of the GeoTIFFs as --manual_dir"

    def _info(self) -> tfds.core.DatasetInfo:
        return records.dataset_info(
            self,
            size=self.builder_config.size,
            description="Patches cut from Sentinel-1 GeoTIFFs, backscatter in dB.",
            features={
                "scene": tfds.features.Text(),
                "corner": tfds.features.Tensor(
                    shape=(2,), dtype=np.int32, doc="row and column of the upper left pixel"
                ),
            },
            floor_db=units.FLOOR_DB,
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Looks at every file, and at every pixel once."""
        said, cut = settings(self.builder_config)
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
        surveys = {n: one for n, one in looked.items() if isinstance(one, Survey)}
        for one in looked.values():
            problems.extend(() if isinstance(one, Survey) else one)
        items = np.concatenate(
            [np.empty(0, ITEM), *(_items(n, s.corners) for n, s in sorted(surveys.items()))]
        )
        facts = {
            "quantity": quantity,
            "floored_pixels": sum(one.floored for one in surveys.values()),
        }
        arguments = (root, scratch, cut.size, said.nodata, tuple(found))
        notes = _notes(files, list(surveys.values()), quantity, cut)
        return Plan({"train": items}, read_record, arguments, problems, facts, notes)


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


def settings(config: Config) -> tuple[Said, Cut]:
    """The checked settings of a config.

    Raises:
      InputError: a name or number cannot be used.
    """
    bands = tuple(name.strip().upper() for name in config.bands.split(",") if name.strip())
    if bands and (not set(BANDS) <= set(bands) or len(set(bands)) < len(bands)):
        raise InputError(
            f"--bands={config.bands}: expected {' and '.join(BANDS)} in the order of the files, "
            "each once, and any names for further bands"
        )
    if config.unit:
        look_up(units.UNITS, config.unit, "unit")
    if config.quantity:
        look_up(QUANTITIES, config.quantity, "quantity")
    try:
        nodata = float(config.nodata) if config.nodata else None
    except ValueError as error:
        raise InputError(f"--nodata={config.nodata}: expected a number") from error
    if config.size < 32 or not 0 <= config.overlap < config.size:
        raise InputError(
            f"--size={config.size} --overlap={config.overlap}: expected at least 32 pixels, and an "
            "overlap from 0 to below the size"
        )
    if not 0 <= config.max_nodata < 1:
        raise InputError(f"--max_nodata={config.max_nodata}: expected from 0 to below 1")
    said = Said(bands, config.unit, config.quantity, nodata)
    return said, Cut(config.size, config.overlap, config.max_nodata)


def border_path(scratch: Path, number: int) -> Path:
    """The mask of the zeros of a scene that mean nodata, if it has any."""
    return scratch / f"{number:06d}.npy"


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


def read_record(
    root: Path,
    scratch: Path,
    size: int,
    nodata: float | None,
    found: tuple[Scene, ...],
    item: tuple[int, int, int],
) -> Example:
    """The record of a window.

    Raises:
      BadFilesError: a file cannot be read.
    """
    number, row, column = item
    scene = found[number]
    values = read_window(root, scene, Window(column, row, size, size), nodata)
    values[_border(border_path(scratch, number), row, column, size)] = np.nan
    name = f"{scene.name}_{row}_{column}"
    with geotiff.open_raster(root / scene.layers[0].path, keep=True) as raster:
        place = geotiff.georeference(raster, Window(column, row, size, size))
    return name, {
        "id": name,
        "backscatter": units.to_db(values, scene.unit),
        "scene": scene.name,
        "corner": np.array([row, column], np.int32),
        **records.place(scene.name, place),
    }


def _border(path: Path, row: int, column: int, size: int) -> np.ndarray:
    """The zeros of a window that mean nodata: (size, size)."""
    if not path.exists():
        return np.zeros((size, size), bool)
    rows = np.load(path, mmap_mode="r")[row : row + size]
    return np.unpackbits(rows, axis=1)[:, column : column + size].astype(bool)
