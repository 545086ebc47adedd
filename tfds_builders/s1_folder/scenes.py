"""Scenes: images of all bands of the dataset, grouped from single-band or multi-band files."""

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.files import atomic_write, read_json
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, BadFilesError, bad_file
from tfds_builders.s1_folder.file_selection import UserMetadata
from tfds_builders.s1_folder.raster_files import RasterFile


class Layer(NamedTuple):
    """A band of a file.

    Attributes:
      path: path of the file relative to the folder.
      number: number of the band in the file, from 1.
    """

    path: str
    number: int


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image with all bands of the dataset.

    Attributes:
      name: path of the file relative to the folder, without suffix and polarisation.
      bands: names of the bands.
      layers: layer of each band.
      unit: unit of the files, "dB" or "linear".
      shape: (rows, columns).
      georeference: position of the image.
      unplaced: reason why the position is unknown; "" if it is known.
      uses_gcps: True if the image is warped by its ground control points; shape and position are
        those of the result.
      quantity: "sigma0", "gamma0" or "beta0", several with commas, by its files or the user; ""
        where neither states it.
    """

    name: str
    bands: tuple[str, ...]
    layers: tuple[Layer, ...]
    unit: str
    shape: tuple[int, int]
    georeference: geotiff.Georeference
    unplaced: str = ""
    uses_gcps: bool = False
    quantity: str = ""


def group_into_scenes(
    root: Path, files: Sequence[RasterFile], user: UserMetadata
) -> tuple[list[Scene], list[BadFile]]:
    """Group the bands of every image.

    Args:
      root: folder of the files.
      files: metadata of the files that `select_files` selected.
      user: metadata given by the user.

    Returns:
      Scenes sorted by name, and the files that cannot be used.
    """
    scenes: list[Scene] = []
    bad_files: list[BadFile] = []
    single_band: dict[str, list[tuple[str, RasterFile]]] = {}
    for file in files:
        if file.unusable:
            bad_files.append(BadFile(str(root / file.path), file.unusable))
            continue
        try:
            if band := file.bands[0] if len(file.bands) == 1 else None:
                single_band.setdefault(file.image, []).append((band, file))
            else:
                layers = {
                    band: Layer(str(file.path), number)
                    for number, band in enumerate(_band_names(root, file, user), start=1)
                }
                scenes.append(_scene(root, file.image, layers, [file], user))
        except BadFilesError as error:
            bad_files.extend(error.bad_files)
    for name, band_files in single_band.items():
        try:
            scenes.append(_merge_single_bands(root, name, band_files, user))
        except BadFilesError as error:
            bad_files.extend(error.bad_files)
    first = {scene.name: scene for scene in reversed(scenes)}
    for scene in scenes:
        if first[scene.name] is not scene:
            bad_files.append(
                BadFile(
                    str(root / scene.layers[0].path),
                    f"found the image {scene.name} in {first[scene.name].layers[0].path} too, "
                    "expected each once: keep one",
                )
            )
    return [first[name] for name in sorted(first)], bad_files


def _band_names(root: Path, file: RasterFile, user: UserMetadata) -> tuple[str, ...]:
    """Return the names of the bands of a multi-band file, stated by the file or the user."""
    given = len(user.bands) == len(file.bands)
    if given and any(
        stated and stated != name for stated, name in zip(file.bands, user.bands, strict=True)
    ):
        raise bad_file(
            root / file.path,
            f"found bands described as {_join(file.bands)}, and --bands={_join(user.bands)}, "
            "expected no contradiction: leave out --bands, or correct the file",
        )
    if set(user.dataset_bands) <= set(file.bands):
        return tuple(band or "" for band in file.bands)
    if given:
        return user.bands
    raise bad_file(
        root / file.path,
        f"found {len(file.bands)} bands described as {_join(file.bands)}, expected descriptions "
        f"that name {' and '.join(user.dataset_bands)} each once: name them with --bands, such as "
        "--bands=VV,VH",
    )


def _merge_single_bands(
    root: Path, name: str, band_files: Sequence[tuple[str, RasterFile]], user: UserMetadata
) -> Scene:
    """Return the scene of single-band files."""
    counts = Counter(band for band, _ in band_files)
    files = [file for _, file in band_files]
    for band, file in band_files:
        if counts[band] > 1:
            raise bad_file(
                root / file.path, f"found {counts[band]} files of {band} for one image: keep one"
            )
        if file.shape != files[0].shape or not geotiff.same_grid(
            file.georeference, files[0].georeference
        ):
            first = files[0]
            raise bad_file(
                root / file.path,
                f"found {file.shape} pixels at {file.georeference}, expected the grid of "
                f"{first.path.name}, {first.shape} at {first.georeference}: resample one of them",
            )
    layers = {band: Layer(str(file.path), 1) for band, file in band_files}
    return _scene(root, name, layers, files, user)


def _scene(
    root: Path,
    name: str,
    layers: Mapping[str, Layer],
    files: Sequence[RasterFile],
    user: UserMetadata,
) -> Scene:
    """Return a scene after checking its bands and its unit."""
    missing = [band for band in user.dataset_bands if band not in layers]
    if missing:
        raise bad_file(
            root / files[0].path,
            f"found {_join(layers)}, expected {_join(user.dataset_bands)}: no {_join(missing)} "
            f"belongs to it; --bands={_join(layers)} builds a dataset of what was found, and "
            "--band_pattern finds files by other names",
        )
    units = {file.unit for file in files if file.unit}
    if len(units) > 1 or (user.unit and units and units != {user.unit}):
        raise bad_file(
            root / files[0].path,
            f"found {_join(sorted(units))} stated by the files"
            + (f" and --unit={user.unit}" if user.unit else "")
            + ", expected one unit: correct the one that is wrong",
        )
    unit = units.pop() if units else user.unit
    if unit == "amplitude":
        raise bad_file(
            root / files[0].path,
            "found amplitude, by its name or description, expected power or dB: square it",
        )
    if not unit:
        raise bad_file(
            root / files[0].path,
            "found no unit in name, description or tags: give --unit=dB or --unit=linear",
        )
    first = files[0]
    return Scene(
        name,
        user.dataset_bands,
        tuple(layers[band] for band in user.dataset_bands),
        unit,
        first.shape,
        first.georeference,
        first.unplaced,
        first.uses_gcps,
        ",".join(sorted({file.quantity for file in files if file.quantity})) or user.quantity,
    )


def common_quantity(files: Sequence[RasterFile], user: UserMetadata) -> str:
    """Return the quantity of all files, "sigma0" or "gamma0", or "not stated".

    Args:
      files: metadata of the files of scenes.
      user: metadata given by the user.

    Raises:
      InputError: the files differ, contradict the user, or only some of them state a quantity.
    """
    counts = Counter(file.quantity for file in files)
    stated = {name: count for name, count in counts.items() if name}
    example = {file.quantity: file.path.name for file in files}
    found = ", ".join(
        f"{count} files state {name or 'nothing'} ({example[name]}{' …' if count > 1 else ''})"
        for name, count in counts.items()
    )
    if "beta0" in stated:
        raise InputError(f"{found}: expected sigma0 or gamma0: calibrate to one of them")
    if len(stated) > 1 or (user.quantity and stated and set(stated) != {user.quantity}):
        raise InputError(
            f"{found}{f', --quantity={user.quantity}' if user.quantity else ''}: sigma0 and gamma0 "
            "differ by a decibel and more with the incidence angle; build them separately"
        )
    if stated and counts[None] and not user.quantity:
        raise InputError(
            f"{found}: if all of them are {next(iter(stated))}, give "
            f"--quantity={next(iter(stated))}"
        )
    return user.quantity or next(iter(stated), "not stated")


def _join(names: Iterable[str | None]) -> str:
    return ",".join(name or "?" for name in names)


SCENES_FILE = "scenes.json"


def write_scenes(scenes: Sequence[Scene], folder: Path) -> None:
    """Write scenes for the processes that cut them: too many to be sent with every shard."""
    content = json.dumps([dataclasses.asdict(scene) for scene in scenes])
    atomic_write(folder / SCENES_FILE, content.encode())


def read_scenes(folder: Path) -> list[Scene]:
    """Return the scenes that `write_scenes` wrote to a folder."""
    return _read_cached(folder / SCENES_FILE, (folder / SCENES_FILE).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_cached(path: Path, version: int) -> list[Scene]:
    del version  # part of the key: the file may have been replaced
    return [
        Scene(
            scene["name"],
            tuple(scene["bands"]),
            tuple(Layer(*layer) for layer in scene["layers"]),
            scene["unit"],
            (scene["shape"][0], scene["shape"][1]),
            geotiff.Georeference(scene["georeference"][0], tuple(scene["georeference"][1])),
            scene["unplaced"],
            scene["uses_gcps"],
            scene["quantity"],
        )
        for scene in read_json(path)
    ]
