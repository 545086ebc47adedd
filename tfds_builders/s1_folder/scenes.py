"""Puts files together to images: which file and band holds VV, which VH, in which unit."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, BadFilesError, bad_file
from tfds_builders.s1_folder.raster_files import File, without_polarisation


class Layer(NamedTuple):
    """One band of one file.

    Attributes:
      path: of the file, below the folder.
      number: of the band in the file, from 1.
    """

    path: str
    number: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image with both bands.

    Attributes:
      name: path of the file below the folder, without suffix and polarisation.
      layers: of each band of `BANDS`.
      unit: of the files, "dB" or "linear".
      shape: (rows, columns).
      place: where it lies.
    """

    name: str
    layers: tuple[Layer, ...]
    unit: str
    shape: tuple[int, int]
    place: geotiff.Georeference


@dataclasses.dataclass(frozen=True)
class Said:
    """What the user says where the files do not.

    Attributes:
      bands: names of the bands of a file with several, in their order; empty: nothing.
      unit: "dB", "linear", or empty.
      quantity: "sigma0", "gamma0", or empty.
      nodata: a value that means nodata besides NaN and the tagged one.
    """

    bands: tuple[str, ...] = ()
    unit: str = ""
    quantity: str = ""
    nodata: float | None = None


def group(root: Path, files: Sequence[File], said: Said) -> tuple[list[Scene], list[BadFile]]:
    """Puts the bands of an image together.

    Files beside the backscatter are left out; those of several bands that say nothing are refused.

    Returns:
      The images that can be used, and what is wrong with the others.
    """
    scenes: list[Scene] = []
    problems: list[BadFile] = []
    single: dict[str, list[tuple[str, File]]] = {}
    for file in files:
        if file.is_beside:
            continue
        try:
            if band := file.bands[0] if len(file.bands) == 1 else None:
                name = without_polarisation(str(file.path.with_suffix("")), band)
                single.setdefault(name, []).append((band, file))
            else:
                layers = {
                    band: Layer(str(file.path), number)
                    for number, band in enumerate(_bands_of(root, file, said), start=1)
                }
                scenes.append(_scene(root, str(file.path.with_suffix("")), layers, [file], said))
        except BadFilesError as error:
            problems.extend(error.bad_files)
    for name, of_bands in single.items():
        try:
            scenes.append(_scene_of_files(root, name, of_bands, said))
        except BadFilesError as error:
            problems.extend(error.bad_files)
    first = {scene.name: scene for scene in reversed(scenes)}
    for scene in scenes:
        if first[scene.name] is not scene:
            problems.append(
                BadFile(
                    str(root / scene.layers[0].path),
                    f"found the image {scene.name} in {first[scene.name].layers[0].path} too, "
                    "expected each once: keep one",
                )
            )
    return [first[name] for name in sorted(first)], problems


def _bands_of(root: Path, file: File, said: Said) -> tuple[str, ...]:
    """The bands of a file with several, as it or the user says."""
    told = len(said.bands) == len(file.bands)
    if told and any(
        own and own != other for own, other in zip(file.bands, said.bands, strict=True)
    ):
        raise bad_file(
            root / file.path,
            f"found bands described as {_join(file.bands)}, and --bands={_join(said.bands)}, "
            "expected no contradiction: leave out --bands, or correct the file",
        )
    if set(BANDS) <= set(file.bands):
        return tuple(band or "" for band in file.bands)
    if told:
        return said.bands
    raise bad_file(
        root / file.path,
        f"found {len(file.bands)} bands described as {_join(file.bands)}, expected descriptions "
        f"that name {' and '.join(BANDS)} each once: say what they are with --bands, such as "
        "--bands=VV,VH",
    )


def _scene_of_files(
    root: Path, name: str, of_bands: Sequence[tuple[str, File]], said: Said
) -> Scene:
    """An image of which every band is a file."""
    counts = Counter(band for band, _ in of_bands)
    files = [file for _, file in of_bands]
    for band, file in of_bands:
        if counts[band] > 1:
            raise bad_file(
                root / file.path, f"found {counts[band]} files of {band} for one image: keep one"
            )
        if file.shape != files[0].shape or not geotiff.same_grid(file.place, files[0].place):
            raise bad_file(
                root / file.path,
                f"found {file.shape} pixels at {file.place}, expected the grid of "
                f"{files[0].path.name}, {files[0].shape} at {files[0].place}: resample one of them",
            )
    layers = {band: Layer(str(file.path), 1) for band, file in of_bands}
    return _scene(root, name, layers, files, said)


def _scene(
    root: Path, name: str, layers: Mapping[str, Layer], files: Sequence[File], said: Said
) -> Scene:
    missing = [band for band in BANDS if band not in layers]
    if missing:
        raise bad_file(
            root / files[0].path,
            f"found {_join(layers)}, expected {_join(BANDS)}: no {_join(missing)} belongs to it",
        )
    units = {file.unit for file in files if file.unit}
    if len(units) > 1 or (said.unit and units and units != {said.unit}):
        raise bad_file(
            root / files[0].path,
            f"found {_join(sorted(units))} said by the files"
            + (f" and --unit={said.unit}" if said.unit else "")
            + ", expected one unit: correct the one that is wrong",
        )
    unit = units.pop() if units else said.unit
    if unit == "amplitude":
        raise bad_file(
            root / files[0].path,
            "found amplitude, by its name or description, expected power or dB: square it",
        )
    if not unit:
        raise bad_file(
            root / files[0].path,
            "found no unit in name, description or tags: say --unit=dB or --unit=linear",
        )
    first = files[0]
    return Scene(name, tuple(layers[band] for band in BANDS), unit, first.shape, first.place)


def common_quantity(files: Iterable[File], said: Said) -> str:
    """sigma0 or gamma0, of the whole folder; "not stated" where neither files nor user say.

    Raises:
      InputError: files differ, or contradict the user, or only some of them say it.
    """
    counts = Counter(file.quantity for file in files if not file.is_beside)
    stated = {name: count for name, count in counts.items() if name}
    found = ", ".join(f"{count} files say {name or 'nothing'}" for name, count in counts.items())
    if "beta0" in stated:
        raise InputError(f"{found}: expected sigma0 or gamma0: calibrate to one of them")
    if len(stated) > 1 or (said.quantity and stated and set(stated) != {said.quantity}):
        raise InputError(
            f"{found}{f', --quantity={said.quantity}' if said.quantity else ''}: sigma0 and gamma0 "
            "differ by a decibel and more with the incidence angle; build them apart"
        )
    if stated and counts[None] and not said.quantity:
        raise InputError(
            f"{found}: if all of them are {next(iter(stated))}, say --quantity={next(iter(stated))}"
        )
    return said.quantity or next(iter(stated), "not stated")


def _join(names: Iterable[str | None]) -> str:
    return ",".join(name or "?" for name in names)


TABLE = "scenes.json"


def write(found: Sequence[Scene], folder: Path) -> None:
    """Writes scenes for the processes that cut them: too many to be sent with every shard."""
    atomic_write(folder / TABLE, json.dumps([dataclasses.asdict(one) for one in found]).encode())


def read(folder: Path) -> list[Scene]:
    """The scenes that were written to a folder."""
    return _read(folder / TABLE, (folder / TABLE).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read(path: Path, version: int) -> list[Scene]:
    del version  # tells a table from the one that was there before
    return [
        Scene(
            one["name"],
            tuple(Layer(*layer) for layer in one["layers"]),
            one["unit"],
            (one["shape"][0], one["shape"][1]),
            geotiff.Georeference(one["place"][0], tuple(one["place"][1])),
        )
        for one in json.loads(path.read_text())
    ]
