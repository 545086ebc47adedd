"""The GeoTIFFs in a folder, and what each says of itself."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sar_mixmae_jax.errors import InputError
from tfds_builders import geotiff
from tfds_builders.problems import Problem, bad_file, is_text
from tfds_builders.s1_folder import naming

GEOTIFF_SUFFIXES = (".tif", ".tiff")


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
