"""Files of a sequence, matched with the images that the list describes."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.sen12_flood import archive, index
from tfds_builders.sen12_flood.archive import Source
from tfds_builders.sen12_flood.index import Image
from tfds_builders.sen12_flood.rasters import UNKNOWN, Grid, Item, grid_of

PARTIAL = "an image covers the place in part"


class Folder(NamedTuple):
    """Files of a sequence.

    Attributes:
      path: path of the folder in the archive.
      bands: name of the file by product (lower case) and band.
      references: names of band 4 of the Sentinel-2 images, sorted.
      other_bands: products (lower case) with files of HH or HV.
    """

    path: str
    bands: dict[tuple[str, str], str]
    references: list[str]
    other_bands: set[str]


class SequenceSurvey(NamedTuple):
    """Images of a sequence and their files.

    Attributes:
      images: all images of the list, in its order.
      items: images that become records.
      grid: common grid of the records; None where there are none.
      absent: reason by id of every image that is deliberately left out.
      problems: defects of list and files.
      dropped: number of images that are left out due to defects.
      unlisted: number of images in the folder that the list does not describe.
    """

    images: list[Image]
    items: list[Item]
    grid: Grid | None
    absent: dict[str, str]
    problems: list[BadFile]
    dropped: int
    unlisted: int


def folders(files: Iterable[str]) -> dict[str, list[Folder]]:
    """Return the folders with images in an archive, by their last name."""
    by_path: dict[str, Folder] = {}
    for name in sorted(files):
        path, _, file = name.rpartition("/")
        band = archive.band_file(file)
        other = archive.other_band_file(file)
        if band or other or archive.is_reference(file):
            folder = by_path.setdefault(path, Folder(path, {}, [], set()))
            if other:
                folder.other_bands.add(other.product.lower())
            elif band:
                folder.bands.setdefault((band.product.lower(), band.band), name)
            else:
                folder.references.append(name)
    by_name: dict[str, list[Folder]] = {}
    for path, folder in by_path.items():
        by_name.setdefault(path.rsplit("/", 1)[-1], []).append(folder)
    return by_name


def undescribed(
    named: Mapping[str, list[Folder]], described: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Return the paths of folders with Sentinel-1 images that belong to no sequence of the list.

    Args:
      named: see `folders`.
      described: entries of the list by id of their sequence.
    """
    known = {str(name).lstrip("0") for name in described} | {
        _listed_name(sequence, entries) for sequence, entries in described.items()
    }
    return sorted(
        folder.path
        for name, alike in named.items()
        if name.lstrip("0") not in known and name not in known
        for folder in alike
        if folder.bands or folder.other_bands
    )


def _listed_name(sequence: str, entries: Mapping[str, Any]) -> str:
    """Return the last name of the folder that the list states, by default the id."""
    path = str(entries.get("folder", sequence)).replace("\\", "/")
    return path.rstrip("/").rsplit("/", 1)[-1]


def folder_of(
    sequence: str, entries: Mapping[str, Any], named: Mapping[str, list[Folder]], place: Path
) -> Folder | None:
    """Return the folder of a sequence, or None.

    It has the name of the id or of the entry "folder"; else, where unambiguous, the name of the id
    with other leading zeros.

    Args:
      sequence: id of the sequence.
      entries: its entry in the list.
      named: see `folders`.
      place: the archive, for messages.

    Raises:
      InputError: several folders have the name.
    """
    listed_name = _listed_name(sequence, entries)
    alike = [name for name in named if name.lstrip("0") == sequence.lstrip("0")]
    for name in (sequence, listed_name, *(alike if len(alike) == 1 else ())):
        matches = named.get(name, [])
        if len(matches) > 1:
            raise InputError(
                f"{place}: found several folders of sequence {sequence}, {matches[0].path} and "
                f"{matches[1].path}, expected one: move the others away"
            )
        if matches:
            return matches[0]
    return None


def survey_sequence(
    sequence: str,
    entries: Mapping[str, Any],
    folder: Folder | None,
    place: Path,
    source: Source,
    *,
    size: int,
    full_only: bool,
    needs: tuple[str, ...],
) -> SequenceSurvey:
    """Match the images of a sequence with its files.

    Args:
      sequence: id of the sequence.
      entries: its entry in the list.
      folder: its files; None if there are none.
      place: the archive.
      source: the list, for messages.
      size: required side of the grid in pixels.
      full_only: leave out images that cover the grid in part.
      needs: fields that must be known of an image, see `index.images_of`.
    """
    images, unusable, problems, products = index.images_of(sequence, entries, source, needs=needs)
    dropped, usable = len(problems), len(images) - len(unusable)
    if folder is None:
        reason = f"found no folder of sequence {sequence}, which a list names: restore it"
        problems.append(BadFile(str(place), reason))
        return SequenceSurvey(images, [], None, {}, problems, dropped + usable, 0)
    unlisted = len({name for name, _ in folder.bands} - products)
    grid, grid_problems = _grid(folder, place)
    if grid is None:
        problems += grid_problems
        return SequenceSurvey(images, [], None, {}, problems, dropped + usable, unlisted)
    if grid.shape != (size, size):
        absent = dict.fromkeys((image.id for image in images), f"not {size}x{size} px")
        return SequenceSurvey(images, [], None, absent, problems, dropped, unlisted)
    items, absent = [], dict(unusable)
    for image in images:
        if image.id in unusable:
            continue
        files = {band: folder.bands.get((image.product.lower(), band)) for band in BANDS}
        missing = [band for band, name in files.items() if name is None]
        if full_only and not image.full:
            absent[image.id] = PARTIAL
        elif missing:
            dropped += 1
            found = (
                "found HH or HV in its place, expected VH and VV"
                if image.product.lower() in folder.other_bands
                else "found no such file, expected one for each band"
            )
            problems += [
                BadFile(
                    f"{place}/{folder.path}/{image.product}_corrected_{band}.tif",
                    f"{found}: restore it, or take the image out of the list",
                )
                for band in missing
            ]
        else:
            items.append(_item(image, files, folder.references[0]))
    return SequenceSurvey(images, items, grid, absent, problems, dropped, unlisted)


def _grid(folder: Folder, place: Path) -> tuple[Grid | None, list[BadFile]]:
    """Return the grid of the first Sentinel-2 image, or None with the problems."""
    if not folder.references:
        reason = (
            "found no Sentinel-2 reference, expected a file such as S2_2019-01-24_B04.tif: restore "
            "it, or take the sequence out of the list"
        )
        return None, [BadFile(f"{place}/{folder.path}", reason)]
    try:
        return grid_of(Source(place, folder.references[0])), []
    except BadFilesError as error:
        return None, list(error.bad_files)


def _item(image: Image, files: Mapping[str, str | None], reference: str) -> Item:
    return Item(
        image.sequence,
        image.product,
        str(files["VH"]),
        str(files["VV"]),
        reference,
        image.time.isoformat() if image.time else "",
        image.orbit_pass,
        int(image.flooded),
        UNKNOWN if image.full is None else int(image.full),
        image.relative_orbit,
    )
