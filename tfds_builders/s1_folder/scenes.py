"""Finds the images in a folder: which file and band holds VV, which VH, in which unit."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.bands import BANDS
from sar_mixmae_jax.errors import InputError
from sar_mixmae_jax.files import write_whole
from tfds_builders import geotiff
from tfds_builders.problems import BadFilesError, Problem, bad_file, is_text
from tfds_builders.s1_folder import naming

GEOTIFF_SUFFIXES = (".tif", ".tiff")


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
      spacing: side of a pixel in metres, by its rows; NaN where unknown.
    """

    name: str
    layers: tuple[Layer, ...]
    unit: str
    shape: tuple[int, int]
    spacing: float


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


@dataclasses.dataclass(frozen=True)
class File:
    """What a GeoTIFF says of itself.

    Attributes:
      path: below the folder.
      shape: (rows, columns).
      place: where it lies.
      bands: polarisation of each band, None where it is not said.
      unit: "dB", "linear", or None.
      quantity: "sigma0", "gamma0", "beta0", or None.
      floating: whether all bands are of floats.
    """

    path: Path
    shape: tuple[int, int]
    place: geotiff.Georeference
    bands: tuple[str | None, ...]
    unit: str | None
    quantity: str | None
    floating: bool

    @property
    def is_beside(self) -> bool:
        """Whether it is no backscatter, as far as it says: angles, masks, terrain, pictures."""
        return not any(self.bands) and (len(self.bands) == 1 or not self.floating)


def find_files(root: Path) -> tuple[list[Path], list[Problem]]:
    """All GeoTIFFs below `root`, by name, and the folders that cannot be looked into.

    Hidden files and folders are passed over.

    Raises:
      InputError: there is neither.
    """
    unreadable: list[OSError] = []
    paths: list[Path] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths.extend(
            Path(folder, name).relative_to(root)
            for name in files
            if Path(name).suffix.lower() in GEOTIFF_SUFFIXES
            and not name.startswith(".")
            and os.path.isfile(os.path.join(folder, name))
        )
    problems = [Problem(str(e.filename), f"cannot be read ({e.strerror})") for e in unreadable]
    problems += [
        Problem(str(root / path), "found a name that is no UTF-8: rename it")
        for path in paths
        if not is_text(str(path))
    ]
    if not paths and not problems:
        raise InputError(f"{root}: found no file *.tif or *.tiff in it or below, expected GeoTIFFs")
    return sorted(path for path in paths if is_text(str(path))), problems


def describe_file(root: Path, path: Path) -> File:
    """Reads what a GeoTIFF says of itself.

    Raises:
      BadFilesError: it cannot be read.
    """
    with geotiff.open_raster(root / path) as raster:
        descriptions = [text or "" for text in raster.descriptions]
        bands = [naming.polarisation(text) for text in descriptions]
        if raster.count == 1:
            bands = [_band_of_file(root / path, bands[0])]
        elif len(set(filter(None, bands))) < len([band for band in bands if band]):
            bands = [None] * raster.count  # several bands of one name say nothing
        texts = [path.stem, *descriptions, *(f"{key} {value}" for key, value in _tags(raster))]
        product = naming.hyp3(path.stem)
        return File(
            path,
            raster.shape,
            geotiff.georeference(raster),
            tuple(bands),
            product.unit if product else naming.unit([*texts, *(u or "" for u in raster.units)]),
            product.quantity if product else naming.quantity(texts),
            all(map(geotiff.is_floating, raster.dtypes)),
        )


def _band_of_file(path: Path, described: str | None) -> str | None:
    """The polarisation of a file of one band, by its name, else its folder's, else its description.

    Raises:
      BadFilesError: name and description differ.
    """
    if naming.is_no_backscatter(path.stem):
        return None
    folder = path.parent.name.upper()
    named = naming.polarisation(path.stem) or (folder if folder in naming.POLARISATIONS else None)
    if named and described and described != named:
        raise bad_file(
            path,
            f"found {named} in its name and {described} in the description of its band, expected "
            "one: correct the one that is wrong",
        )
    return named or described


def _tags(raster: Any) -> Iterator[tuple[str, str]]:
    """Tags of the file and its bands that can hold a unit or a quantity."""
    for number in range(raster.count + 1):
        for key, value in raster.tags(number).items():
            if any(word in key.lower() for word in ("unit", "calib", "quantity", "backscatter")):
                yield key, value


def group(root: Path, files: Sequence[File], said: Said) -> tuple[list[Scene], list[Problem]]:
    """Puts the bands of an image together.

    Files beside the backscatter are left out; those of several bands that say nothing are refused.

    Returns:
      The images that can be used, and what is wrong with the others.
    """
    scenes: list[Scene] = []
    problems: list[Problem] = []
    single: dict[str, list[tuple[str, File]]] = {}
    for file in files:
        if file.is_beside:
            continue
        try:
            if band := file.bands[0] if len(file.bands) == 1 else None:
                name = naming.without_polarisation(str(file.path.with_suffix("")), band)
                single.setdefault(name, []).append((band, file))
            else:
                layers = {
                    band: Layer(str(file.path), number)
                    for number, band in enumerate(_bands_of(root, file, said), start=1)
                }
                scenes.append(_scene(root, str(file.path.with_suffix("")), layers, [file], said))
        except BadFilesError as error:
            problems.extend(error.problems)
    for name, of_bands in single.items():
        try:
            scenes.append(_scene_of_files(root, name, of_bands, said))
        except BadFilesError as error:
            problems.extend(error.problems)
    first = {scene.name: scene for scene in reversed(scenes)}
    for scene in scenes:
        if first[scene.name] is not scene:
            problems.append(
                Problem(
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
    spacing = geotiff.spacing(files[0].place)
    return Scene(name, tuple(layers[band] for band in BANDS), unit, files[0].shape, spacing)


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
    write_whole(folder / TABLE, json.dumps([dataclasses.asdict(one) for one in found]).encode())


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
            one["spacing"],
        )
        for one in json.loads(path.read_text())
    ]
