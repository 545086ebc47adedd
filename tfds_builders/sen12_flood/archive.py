"""The archive as it lies on the disk: a zip or an unpacked folder, of which files are read whole.

Nothing is unpacked. Names inside a zip are only names to ask the zip for; what they claim to be on
a disk is of no meaning.
"""

import lzma
import os
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders.bad_files import bad_file, is_text
from tfds_builders.sen12_flood import product_names

DEPTH = 4
"""Folders below the one that is named: deeper ones are of something else."""

LARGEST = 256 * 2**20
"""Bytes of a file; an image of 512x512 has two megabytes at most."""

BROKEN = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
"""What is raised for a member of a zip that is damaged."""

HIDDEN = (".", "__")
"""What names of files and folders begin with that are not looked at."""

ADVICE = "name the archive's zip, or the folder that holds it or the unpacked sequences"


class Source(NamedTuple):
    """A file that can be read.

    Attributes:
      place: the zip or the folder that it is in.
      name: of the file there, with slashes.
    """

    place: Path
    name: str

    def __str__(self) -> str:
        return f"{self.place}/{self.name}"


def find(root: Path) -> Path:
    """The zip or the folder that holds the band files.

    Args:
      root: what the user named: either of them, or the folder of the zip.

    Raises:
      InputError: there is none, or there are several.
    """
    if has_bands(root):
        return root
    zips = (
        [] if root.is_file() else [root / n for n in file_names(root) if n.lower().endswith(".zip")]
    )
    found = [path for path in zips if has_bands(path)]
    if len(found) > 1:
        raise InputError(
            f"{root}: found {len(found)} archives, {', '.join(path.name for path in found)}, "
            "expected one: move the others away"
        )
    if not found:
        raise InputError(
            f"{root}: found no files such as 0140/S1A_…_corrected_VV.tif, expected SEN12-FLOOD: "
            f"{ADVICE}"
        )
    return found[0]


def has_bands(place: Path) -> bool:
    """Whether band files of Sentinel-1 images are in a zip or a folder."""
    return any(product_names.band_file(name.rsplit("/", 1)[-1]) for name in file_names(place))


def file_names(place: Path) -> list[str]:
    """The files in a zip or a folder, sorted; hidden ones are passed over.

    Raises:
      InputError: it cannot be read.
    """
    if place.is_file():
        try:
            found = [info.filename for info in _zip_of(place).infolist() if not info.is_dir()]
        except (OSError, zipfile.BadZipFile, ValueError) as error:
            raise InputError(
                f"{place}: cannot be read as a zip ({first_line(error)}): download it again"
            ) from error
    else:
        found = list(_walk(place, place, DEPTH))
    return sorted(
        name
        for name in found
        if is_text(name) and not any(part.startswith(HIDDEN) for part in name.split("/"))
    )


def top_files(folder: Path) -> list[str]:
    """The files right in a folder, sorted; none where it may not be read."""
    try:
        return sorted(_walk(folder, folder, 0))
    except InputError:
        return []


def _walk(top: Path, folder: Path, depth: int) -> list[str]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    found.append(os.path.relpath(entry.path, top).replace(os.sep, "/"))
                elif depth and entry.is_dir() and not entry.name.startswith(HIDDEN):
                    found += _walk(top, Path(entry.path), depth - 1)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({first_line(error)}): allow reading"
        ) from error
    return found


def read(source: Source) -> bytes:
    """The content of a file.

    Raises:
      BadFilesError: it cannot be read, or is too large for what it should be.
    """
    try:
        size, content = _zipped(source) if source.place.is_file() else _unpacked(source)
    except (OSError, KeyError, RuntimeError, EOFError, ValueError, *BROKEN) as error:
        raise bad_file(
            str(source), f"cannot be read ({first_line(error)}): download or copy it again"
        ) from error
    if content is None:
        raise bad_file(
            str(source), f"found {size} bytes, expected {LARGEST} at most: is this the archive?"
        )
    return content


def _zipped(source: Source) -> tuple[int, bytes | None]:
    archive = _zip_of(source.place)
    size = archive.getinfo(source.name).file_size
    return size, archive.read(source.name) if size <= LARGEST else None


def _unpacked(source: Source) -> tuple[int, bytes | None]:
    path = source.place / source.name
    size = path.stat().st_size
    return size, path.read_bytes() if size <= LARGEST else None


def _zip_of(path: Path) -> zipfile.ZipFile:
    """A zip that stays open in this process, unless the file has changed."""
    seen = path.stat()
    return _open(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=2)
def _open(path: Path, *version: int) -> zipfile.ZipFile:
    del version
    return zipfile.ZipFile(path)
