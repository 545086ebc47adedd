"""Files of the archive on disk: a zip or an unpacked folder, read file by file.

Nothing is unpacked: names of zip members are used only as keys of the zip, never as paths, so a
hostile name such as "../../x" cannot reach the disk.
"""

import lzma
import os
import re
import zipfile
import zlib
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders.bad_files import bad_file, is_utf8
from tfds_builders.records import acquisition_time

MAX_DEPTH = 4
"""Levels of subfolders that are searched for files."""

MAX_BYTES = 256 * 2**20
"""Bytes that a file may have; an image of 512x512 has two megabytes at most."""

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""Exceptions that a damaged member of a zip raises."""

HIDDEN = (".", "__")
"""Prefixes of file and folder names that are skipped."""

ADVICE = "name the archive's zip, or the folder that holds it or the unpacked sequences"


class Source(NamedTuple):
    """A readable file.

    Attributes:
      place: path of the zip or the folder that contains it.
      name: name in there, with slashes.
    """

    place: Path
    name: str

    def __str__(self) -> str:
        return f"{self.place}/{self.name}"


def find(root: Path) -> Path:
    """Return the zip or the folder that contains the band files.

    Args:
      root: path from the user: the zip, the unpacked folder, or the folder of the zip.

    Raises:
      InputError: there is none, or there are several.
    """
    if has_bands(root):
        return root
    zips = (
        [] if root.is_file() else [root / n for n in file_names(root) if n.lower().endswith(".zip")]
    )
    archives = [path for path in zips if has_bands(path)]
    if len(archives) > 1:
        raise InputError(
            f"{root}: found {len(archives)} archives, {', '.join(path.name for path in archives)}, "
            "expected one: move the others away"
        )
    if not archives:
        raise InputError(
            f"{root}: found no files such as 0140/S1A_…_corrected_VV.tif, expected SEN12-FLOOD: "
            f"{ADVICE}"
        )
    return archives[0]


def has_bands(place: Path) -> bool:
    """Return True if a zip or a folder contains band files of Sentinel-1 images."""
    return any(band_file(name.rsplit("/", 1)[-1]) for name in file_names(place))


def file_names(place: Path) -> list[str]:
    """Return the names of the files in a zip or a folder, sorted, without hidden ones.

    Raises:
      InputError: it cannot be read.
    """
    if place.is_file():
        try:
            names = [info.filename for info in _zip_of(place).infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise InputError(
                f"{place}: cannot be read as a zip ({first_line(error)}): download it again"
            ) from error
    else:
        names = list(_walk(place, place, MAX_DEPTH))
    return sorted(
        name
        for name in names
        if is_utf8(name) and not any(part.startswith(HIDDEN) for part in name.split("/"))
    )


def top_files(folder: Path) -> list[str]:
    """Return the sorted names of the files directly in a folder; [] if it cannot be read."""
    try:
        return sorted(_walk(folder, folder, 0))
    except InputError:
        return []


def _walk(top: Path, folder: Path, depth: int) -> list[str]:
    names = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    names.append(os.path.relpath(entry.path, top).replace(os.sep, "/"))
                elif depth and entry.is_dir() and not entry.name.startswith(HIDDEN):
                    names += _walk(top, Path(entry.path), depth - 1)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({first_line(error)}): allow reading"
        ) from error
    return names


def read(source: Source) -> bytes:
    """Return the content of a file.

    Raises:
      BadFilesError: it cannot be read, or exceeds `MAX_BYTES`.
    """
    try:
        size, content = _zipped(source) if source.place.is_file() else _unpacked(source)
    except (OSError, KeyError, RuntimeError, EOFError, ValueError, *BROKEN) as error:
        raise bad_file(
            str(source), f"cannot be read ({first_line(error)}): download or copy it again"
        ) from error
    if content is None:
        raise bad_file(
            str(source), f"found {size} bytes, expected {MAX_BYTES} at most: is this the archive?"
        )
    return content


def _zipped(source: Source) -> tuple[int, bytes | None]:
    archive = _zip_of(source.place)
    size = archive.getinfo(source.name).file_size
    return size, archive.read(source.name) if size <= MAX_BYTES else None


def _unpacked(source: Source) -> tuple[int, bytes | None]:
    path = source.place / source.name
    size = path.stat().st_size
    return size, path.read_bytes() if size <= MAX_BYTES else None


def _zip_of(path: Path) -> zipfile.ZipFile:
    """Return a zip that stays open in this process, reopened if the file changed."""
    status = path.stat()
    return _open(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=2)
def _open(path: Path, *version: int) -> zipfile.ZipFile:
    del version
    return zipfile.ZipFile(path)


ORBITS_PER_CYCLE = 175

ORBIT_OFFSETS = {"S1A": 73, "S1B": 27}
"""Offset of the relative orbit: (absolute - offset) mod 175 + 1.

Valid in 2018 and 2019, the years of the archive; other satellites are not derived.
"""
BAND_FILE = re.compile(
    r"(?P<product>.+?)(_corrected)?_(?P<band>VV|VH)(_corrected)?\.tiff?", re.IGNORECASE
)
OTHER_BAND_FILE = re.compile(
    r"(?P<product>.+?)(_corrected)?_(?P<band>HH|HV)(_corrected)?\.tiff?", re.IGNORECASE
)
REFERENCE_FILE = re.compile(r"S2.*_B0?4\.tiff?", re.IGNORECASE)
ENDINGS = re.compile(r"(\.tiff?|_corrected|_VV|_VH)$", re.IGNORECASE)
ABSOLUTE_ORBIT = re.compile(r"(S1[A-Z])_.*_\d{8}T\d{6}_(\d{6})_", re.IGNORECASE)
DATE_FORMATS = ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d", "%d/%m/%Y", "%d-%m-%Y")


class BandFile(NamedTuple):
    """Parts of the name of a band file.

    Attributes:
      product: name of the Sentinel-1 product.
      band: "VV" or "VH"; "HH" or "HV" of `other_band_file`.
    """

    product: str
    band: str


def band_file(name: str) -> BandFile | None:
    """Parse a file name such as `PRODUCT_corrected_VV.tif`; return None for other names."""
    match = BAND_FILE.fullmatch(name)
    return BandFile(match["product"], match["band"].upper()) if match else None


def other_band_file(name: str) -> BandFile | None:
    """Parse the name of a file of HH or HV, which pairs do not use; return None for other names."""
    match = OTHER_BAND_FILE.fullmatch(name)
    return BandFile(match["product"], match["band"].upper()) if match else None


def is_reference(name: str) -> bool:
    """Return True for the name of Sentinel-2 band 4, such as `S2_2019-01-24_B04.tif`."""
    return bool(REFERENCE_FILE.fullmatch(name))


def product_name(filename: str) -> str:
    """Return the product of a `filename` in S1list.json, without folder, band and suffix."""
    name, before = filename.replace("\\", "/").rsplit("/", 1)[-1].strip(), ""
    while name != before:
        name, before = ENDINGS.sub("", name), name
    return name


def relative_orbit(name: str) -> int:
    """Return the relative orbit, 1 to 175, from the absolute orbit in a product name.

    Returns 0 where the name has no absolute orbit or the satellite is not in `ORBIT_OFFSETS`.
    """
    match = ABSOLUTE_ORBIT.match(name)
    if not match or match[1].upper() not in ORBIT_OFFSETS:
        return 0
    return (int(match[2]) - ORBIT_OFFSETS[match[1].upper()]) % ORBITS_PER_CYCLE + 1


def time_of(name: str, date: Any) -> datetime | None:
    """Return the acquisition time of an image, or None where it is unknown.

    Args:
      name: name of the product, whose start time is taken where it has one.
      date: entry "date" of the list, used otherwise; one of `DATE_FORMATS` or ISO 8601.
    """
    if text := acquisition_time(name):
        return datetime.fromisoformat(text)
    text = str(date).strip()
    for date_format in DATE_FORMATS:
        try:
            return datetime.strptime(text, date_format)
        except ValueError:
            continue
    try:
        return datetime.fromisoformat(text).replace(tzinfo=None)
    except ValueError:
        return None
