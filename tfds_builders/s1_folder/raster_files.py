"""GeoTIFFs of a folder, and their metadata from names, descriptions and tags."""

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sar_mixmae_jax.data.metadata import POLARISATIONS
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import geotiff
from tfds_builders.bad_files import BadFile, bad_file, is_utf8
from tfds_builders.s1_folder import gcps
from tfds_builders.s1_folder.layer_names import (
    BandPattern,
    find_polarisation,
    find_quantity,
    find_unit,
    parse_hyp3_name,
    remove_polarisation,
)

GEOTIFF_SUFFIXES = (".tif", ".tiff")


@dataclasses.dataclass(frozen=True)
class RasterFile:
    """Metadata of a GeoTIFF.

    Attributes:
      path: path relative to the folder.
      image: the same without suffix and, in single-band files, without polarisation: equal for all
        files of an image.
      shape: (rows, columns).
      georeference: position of the image.
      unplaced: reason why the position is unknown; "" if it is known.
      bands: polarisation of each band; None where it is not stated.
      unit: "dB", "linear", "amplitude", or None.
      quantity: "sigma0", "gamma0", "beta0", or None.
      unusable: reason why no band can be backscatter, by its type; "" if one can be.
      uses_gcps: True if shape and position are those after warping by ground control points.
    """

    path: Path
    image: str
    shape: tuple[int, int]
    georeference: geotiff.Georeference
    unplaced: str
    bands: tuple[str | None, ...]
    unit: str | None
    quantity: str | None
    unusable: str
    uses_gcps: bool

    @property
    def is_byte_image(self) -> bool:
        """True for pictures, masks and maps of classes, which are no backscatter in any case."""
        return "int8" in self.unusable


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


def read_file_metadata(
    root: Path, path: Path, pattern: BandPattern | None = None, *, use_gcps: bool = False
) -> RasterFile:
    """Read the metadata of a GeoTIFF.

    Args:
      root: folder of the files.
      path: path of the file relative to `root`.
      pattern: pattern of the names of single-band files; None: polarisations are searched.
      use_gcps: give images without a position that of their ground control points.

    Raises:
      BadFilesError: the file cannot be read, its name contradicts its description, or its ground
        control points cannot be used.
    """
    with geotiff.open_raster(root / path) as raster:
        descriptions = [text or "" for text in raster.descriptions]
        bands = [find_polarisation(text) for text in descriptions]
        image = str(path.with_suffix(""))
        if raster.count == 1:
            if pattern is None:
                bands = [_single_band(root / path, bands[0])]
                image = remove_polarisation(image, bands[0]) if bands[0] else image
            else:
                bands[0], image = pattern.match(path) or (None, image)
        elif len(set(filter(None, bands))) < len([band for band in bands if band]):
            bands = [None] * raster.count  # ambiguous: several bands of one name
        texts = [path.stem, *descriptions, *(f"{key} {value}" for key, value in _tags(raster))]
        product = parse_hyp3_name(path.stem)
        shape, place, unplaced = (
            raster.shape,
            geotiff.georeference(raster),
            geotiff.unplaced_reason(raster),
        )
        warped = use_gcps and unplaced == geotiff.GCPS_ONLY and (raster.count > 1 or any(bands))
        if warped:
            (shape, place), unplaced = gcps.find_grid(raster), ""
        errors = [geotiff.dtype_error(raster, number + 1) for number in range(raster.count)]
        return RasterFile(
            path,
            image,
            shape,
            place,
            unplaced,
            tuple(bands),
            product.unit if product else find_unit([*texts, *(u or "" for u in raster.units)]),
            product.quantity if product else find_quantity(texts),
            errors[0] if all(errors) else "",
            warped,
        )


def _single_band(path: Path, described: str | None) -> str | None:
    """Return the polarisation of a single-band file.

    Args:
      path: path of the file; its name comes first, then the name of its folder.
      described: polarisation in the description of the band, which comes last.

    Raises:
      BadFilesError: name and description differ.
    """
    folder = path.parent.name.upper()
    named = find_polarisation(path.stem) or (folder if folder in POLARISATIONS else None)
    if named and described and described != named:
        raise bad_file(
            path,
            f"found {named} in its name and {described} in the description of its band, expected "
            "one: correct the one that is wrong, or give --band_pattern",
        )
    return named or described


def _tags(raster: Any) -> Iterator[tuple[str, str]]:
    """Yield the tags of the file and its bands that may contain a unit or a quantity."""
    for number in range(raster.count + 1):
        for key, value in raster.tags(number).items():
            if any(word in key.lower() for word in ("unit", "calib", "quantity", "backscatter")):
                yield key, value
