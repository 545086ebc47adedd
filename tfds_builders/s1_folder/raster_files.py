"""GeoTIFFs of a folder, and their metadata from names, descriptions and tags."""

import dataclasses
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.data.metadata import POLARISATIONS
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, bad_file, is_utf8

GEOTIFF_SUFFIXES = (".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class RasterFile:
    """Metadata of a GeoTIFF.

    Attributes:
      path: path relative to the folder.
      shape: (rows, columns).
      georeference: position of the image.
      bands: polarisation of each band; None where it is not stated.
      unit: "dB", "linear", "amplitude", or None.
      quantity: "sigma0", "gamma0", "beta0", or None.
      is_floating: True if all bands are of floating-point numbers.
    """

    path: Path
    shape: tuple[int, int]
    georeference: geotiff.Georeference
    bands: tuple[str | None, ...]
    unit: str | None
    quantity: str | None
    is_floating: bool

    @property
    def is_auxiliary(self) -> bool:
        """True if no band is stated to be backscatter: angles, masks, terrain, pictures."""
        return not any(self.bands) and (len(self.bands) == 1 or not self.is_floating)


def find_files(root: Path) -> tuple[list[Path], list[BadFile]]:
    """Find all GeoTIFFs in a folder and its subfolders, except hidden ones.

    Returns:
      Sorted paths relative to `root`, and the folders and files that cannot be read.

    Raises:
      InputError: both are empty.
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
    bad_files = [
        BadFile(str(error.filename), f"cannot be read ({error.strerror})") for error in unreadable
    ]
    bad_files += [
        BadFile(str(root / path), "found a name that is not UTF-8: rename it")
        for path in paths
        if not is_utf8(str(path))
    ]
    if not paths and not bad_files:
        raise InputError(f"{root}: found no file *.tif or *.tiff in it or below, expected GeoTIFFs")
    return sorted(path for path in paths if is_utf8(str(path))), bad_files


def read_file_metadata(root: Path, path: Path) -> RasterFile:
    """Read the metadata of a GeoTIFF.

    Args:
      root: folder of the files.
      path: path of the file relative to `root`.

    Raises:
      BadFilesError: the file cannot be read, or its name contradicts its description.
    """
    with geotiff.open_raster(root / path) as raster:
        descriptions = [text or "" for text in raster.descriptions]
        bands = [find_polarisation(text) for text in descriptions]
        if raster.count == 1:
            bands = [_single_band(root / path, bands[0])]
        elif len(set(filter(None, bands))) < len([band for band in bands if band]):
            bands = [None] * raster.count  # ambiguous: several bands of one name
        texts = [path.stem, *descriptions, *(f"{key} {value}" for key, value in _tags(raster))]
        product = parse_hyp3_name(path.stem)
        return RasterFile(
            path,
            raster.shape,
            geotiff.georeference(raster),
            tuple(bands),
            product.unit if product else find_unit([*texts, *(u or "" for u in raster.units)]),
            product.quantity if product else find_quantity(texts),
            all(map(geotiff.is_floating, raster.dtypes)),
        )


def _single_band(path: Path, described: str | None) -> str | None:
    """Return the polarisation of a single-band file.

    Args:
      path: path of the file; its name comes first, then the name of its folder.
      described: polarisation in the description of the band, which comes last.

    Raises:
      BadFilesError: name and description differ.
    """
    if is_auxiliary_name(path.stem):
        return None
    folder = path.parent.name.upper()
    named = find_polarisation(path.stem) or (folder if folder in POLARISATIONS else None)
    if named and described and described != named:
        raise bad_file(
            path,
            f"found {named} in its name and {described} in the description of its band, expected "
            "one: correct the one that is wrong",
        )
    return named or described


def _tags(raster: Any) -> Iterator[tuple[str, str]]:
    """Yield the tags of the file and its bands that may contain a unit or a quantity."""
    for number in range(raster.count + 1):
        for key, value in raster.tags(number).items():
            if any(word in key.lower() for word in ("unit", "calib", "quantity", "backscatter")):
                yield key, value


def find_polarisation(text: str) -> str | None:
    """Return the only polarisation in a text, in either case; None if there is none, or several.

    It must not be part of a longer word: "Sigma0_VV_db" has VV, "valley_VVX" has none.
    """
    names = {name for name in POLARISATIONS if _has_word(text, name)}
    return names.pop() if len(names) == 1 else None


UNIT_WORDS = {
    "dB": ("dB", "decibels?"),
    "linear": ("linear", "linear[-_ ]power"),
    "amplitude": ("amplitude",),
}


def find_unit(texts: Iterable[str]) -> str | None:
    """Return the only unit in some texts, "dB", "linear" or "amplitude", or None."""
    units = {
        name
        for text in texts
        for name, words in UNIT_WORDS.items()
        if any(_has_word(text, word) for word in words)
    }
    return units.pop() if len(units) == 1 else None


def find_quantity(texts: Iterable[str]) -> str | None:
    """Return the only quantity in some texts, "sigma0", "gamma0" or "beta0", or None."""
    quantities = set()
    for text in texts:
        for name in ("sigma", "gamma", "beta"):
            if re.search(rf"{name}[-_ ]?(0|nought|naught|zero)", text, re.IGNORECASE):
                quantities.add(f"{name}0")
    return quantities.pop() if len(quantities) == 1 else None


def remove_polarisation(name: str, band: str) -> str:
    """Return a name without its polarisation: it is the same for all bands of an image."""
    return re.sub(rf"[-_. ]?{_word(band)}", "", name, flags=re.IGNORECASE)


AUXILIARY_WORDS = (
    "incidence",
    "inc",
    "angle",
    "noise",
    "nesz",
    "np",
    "mask",
    "coherence",
    "coh",
    "ratio",
)


def is_auxiliary_name(name: str) -> bool:
    """Return True if a file name has a word for a layer that is not backscatter."""
    return any(_has_word(name, word) for word in AUXILIARY_WORDS)


class Product(NamedTuple):
    """Quantity and unit of a product, encoded in its name.

    Attributes:
      quantity: "sigma0" or "gamma0".
      unit: "dB", "linear", or "amplitude".
    """

    quantity: str
    unit: str


HYP3 = re.compile(r"_RTC\d+_[A-Z]_([gs])([pda])[a-z]{4}_", re.IGNORECASE)


def parse_hyp3_name(name: str) -> Product | None:
    """Return what the name of a product of ASF's HyP3 encodes, or None for other names.

    Example: `RTC30_G_gpuned` is gamma0 in linear power.
    """
    match = HYP3.search(name)
    if not match:
        return None
    quantity = {"g": "gamma0", "s": "sigma0"}[match[1].lower()]
    return Product(quantity, {"p": "linear", "d": "dB", "a": "amplitude"}[match[2].lower()])


def _has_word(text: str, word: str) -> bool:
    return re.search(_word(word), text, re.IGNORECASE) is not None


def _word(word: str) -> str:
    return rf"(?<![A-Za-z]){word}(?![A-Za-z])"
