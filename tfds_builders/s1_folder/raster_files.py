"""The GeoTIFFs in a folder, and what each says of itself."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, bad_file, is_utf8

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


def find_files(root: Path) -> tuple[list[Path], list[BadFile]]:
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
    problems = [BadFile(str(e.filename), f"cannot be read ({e.strerror})") for e in unreadable]
    problems += [
        BadFile(str(root / path), "found a name that is no UTF-8: rename it")
        for path in paths
        if not is_utf8(str(path))
    ]
    if not paths and not problems:
        raise InputError(f"{root}: found no file *.tif or *.tiff in it or below, expected GeoTIFFs")
    return sorted(path for path in paths if is_utf8(str(path))), problems


def describe_file(root: Path, path: Path) -> File:
    """Reads what a GeoTIFF says of itself.

    Raises:
      BadFilesError: it cannot be read.
    """
    with geotiff.open_raster(root / path) as raster:
        descriptions = [text or "" for text in raster.descriptions]
        bands = [polarisation(text) for text in descriptions]
        if raster.count == 1:
            bands = [_band_of_file(root / path, bands[0])]
        elif len(set(filter(None, bands))) < len([band for band in bands if band]):
            bands = [None] * raster.count  # several bands of one name say nothing
        texts = [path.stem, *descriptions, *(f"{key} {value}" for key, value in _tags(raster))]
        product = hyp3(path.stem)
        return File(
            path,
            raster.shape,
            geotiff.georeference(raster),
            tuple(bands),
            product.unit if product else unit([*texts, *(u or "" for u in raster.units)]),
            product.quantity if product else quantity(texts),
            all(map(geotiff.is_floating, raster.dtypes)),
        )


def _band_of_file(path: Path, described: str | None) -> str | None:
    """The polarisation of a file of one band, by its name, else its folder's, else its description.

    Raises:
      BadFilesError: name and description differ.
    """
    if is_no_backscatter(path.stem):
        return None
    folder = path.parent.name.upper()
    named = polarisation(path.stem) or (folder if folder in POLARISATIONS else None)
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


POLARISATIONS = ("VV", "VH", "HH", "HV")


def polarisation(text: str) -> str | None:
    """The one polarisation that a text names, in either case; None if none or several.

    Letters around it make another word: "Sigma0_VV_db" names VV, "valley_VVX" does not.
    """
    found = {p for p in POLARISATIONS if _has_word(text, p)}
    return found.pop() if len(found) == 1 else None


UNIT_WORDS = {
    "dB": ("dB", "decibels?"),
    "linear": ("linear", "linear[-_ ]power"),
    "amplitude": ("amplitude",),
}


def unit(texts: Iterable[str]) -> str | None:
    """The unit, "dB", "linear" or "amplitude", if the texts say so, and agree."""
    says = {
        name
        for text in texts
        for name, words in UNIT_WORDS.items()
        if any(_has_word(text, word) for word in words)
    }
    return says.pop() if len(says) == 1 else None


def quantity(texts: Iterable[str]) -> str | None:
    """The quantity, sigma0, gamma0 or beta0, if the texts say so, and agree."""
    says = set()
    for text in texts:
        for name in ("sigma", "gamma", "beta"):
            if re.search(rf"{name}[-_ ]?(0|nought|naught|zero)", text, re.IGNORECASE):
                says.add(f"{name}0")
    return says.pop() if len(says) == 1 else None


def without_polarisation(name: str, band: str) -> str:
    """A path without the polarisation in it: the same for all bands of an image."""
    return re.sub(rf"[-_. ]?{_word(band)}", "", name, flags=re.IGNORECASE)


BESIDE = ("incidence", "inc", "angle", "noise", "nesz", "np", "mask", "coherence", "coh", "ratio")


def is_no_backscatter(name: str) -> bool:
    """Whether a file name says that the file is of something delivered beside backscatter."""
    return any(_has_word(name, word) for word in BESIDE)


class Product(NamedTuple):
    """What a product's name says by letters.

    Attributes:
      quantity: "sigma0" or "gamma0".
      unit: "dB", "linear", or "amplitude".
    """

    quantity: str
    unit: str


HYP3 = re.compile(r"_RTC\d+_[A-Z]_([gs])([pda])[a-z]{4}_", re.IGNORECASE)


def hyp3(name: str) -> Product | None:
    """The letters in a name that ASF's HyP3 gave, such as `RTC30_G_gpuned`: gamma0, power."""
    found = HYP3.search(name)
    if not found:
        return None
    letters = found[1].lower(), found[2].lower()
    quantity = {"g": "gamma0", "s": "sigma0"}[letters[0]]
    return Product(quantity, {"p": "linear", "d": "dB", "a": "amplitude"}[letters[1]])


def _has_word(text: str, word: str) -> bool:
    return re.search(_word(word), text, re.IGNORECASE) is not None


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){word}(?![A-Za-z])"
