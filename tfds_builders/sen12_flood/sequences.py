"""One sequence of the archive: its files matched with what the list says of its images."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.sen12_flood import index, product_names
from tfds_builders.sen12_flood.archive import Source
from tfds_builders.sen12_flood.index import Image
from tfds_builders.sen12_flood.rasters import UNKNOWN, Grid, Item, grid_of

PARTIAL = "an image covers the place in part"


class Folder(NamedTuple):
    """The files of a sequence.

    Attributes:
      path: in the archive.
      bands: name of the file, by product in lower case and band.
      references: names of band 4 of the Sentinel-2 images, sorted.
    """

    path: str
    bands: dict[tuple[str, str], str]
    references: list[str]


class Looked(NamedTuple):
    """A sequence that was looked at.

    Attributes:
      images: that the list describes, in its order.
      items: those that become records.
      grid: of the records; None where there are none.
      absent: why images are not among the items, by id.
      problems: what is wrong.
      dropped: images that are left out for that.
      unlisted: images of the folder that the list does not describe.
    """

    images: list[Image]
    items: list[Item]
    grid: Grid | None
    absent: dict[str, str]
    problems: list[BadFile]
    dropped: int
    unlisted: int


def folders(files: Iterable[str]) -> dict[str, list[Folder]]:
    """The folders with images in an archive, by their own name."""
    found: dict[str, Folder] = {}
    for name in sorted(files):
        path, _, file = name.rpartition("/")
        band = product_names.band_file(file)
        if band or product_names.is_reference(file):
            folder = found.setdefault(path, Folder(path, {}, []))
            if band:
                folder.bands.setdefault((band.product.lower(), band.band), name)
            else:
                folder.references.append(name)
    named: dict[str, list[Folder]] = {}
    for path, folder in found.items():
        named.setdefault(path.rsplit("/", 1)[-1], []).append(folder)
    return named


def folder_of(
    sequence: str, entries: Mapping[str, Any], named: Mapping[str, list[Folder]], place: Path
) -> Folder | None:
    """The folder of a sequence: of its id, or as the list calls it; else but for leading zeros.

    Raises:
      InputError: there are several.
    """
    called = str(entries.get("folder", sequence)).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    alike = [name for name in named if name.lstrip("0") == sequence.lstrip("0")]
    for name in (sequence, called, *(alike if len(alike) == 1 else ())):
        found = named.get(name, [])
        if len(found) > 1:
            raise InputError(
                f"{place}: found several folders of sequence {sequence}, {found[0].path} and "
                f"{found[1].path}, expected one: move the others away"
            )
        if found:
            return found[0]
    return None


def look_at(
    sequence: str,
    entries: Mapping[str, Any],
    folder: Folder | None,
    place: Path,
    source: Source,
    *,
    size: int,
    full_only: bool,
    needs: tuple[str, ...],
) -> Looked:
    """Finds the images of a sequence.

    Args:
      sequence: its id.
      entries: what the list says of it.
      folder: its files, if there are any.
      place: the archive.
      source: the list, for messages.
      size: side of the grid that is wanted.
      full_only: whether images that cover the place in part are left out.
      needs: what must be known of an image, see `images_of`.
    """
    images, problems = index.images_of(sequence, entries, source, needs=needs)
    dropped = len(problems)
    if folder is None:
        where = f"found no folder of sequence {sequence}, which a list names: restore it"
        problems.append(BadFile(str(place), where))
        return Looked(images, [], None, {}, problems, dropped + len(images), 0)
    unlisted = len({name for name, _ in folder.bands} - {i.product.lower() for i in images})
    grid, wrong = _grid(folder, place)
    if grid is None:
        problems += wrong
        return Looked(images, [], None, {}, problems, dropped + len(images), unlisted)
    if grid.shape != (size, size):
        absent = dict.fromkeys((image.id for image in images), f"not {size}x{size} px")
        return Looked(images, [], None, absent, problems, dropped, unlisted)
    items, absent = [], {}
    for image in images:
        files = {band: folder.bands.get((image.product.lower(), band)) for band in BANDS}
        missing = [band for band, name in files.items() if name is None]
        if full_only and not image.full:
            absent[image.id] = PARTIAL
        elif missing:
            dropped += 1
            problems += [
                BadFile(
                    f"{place}/{folder.path}/{image.product}_corrected_{band}.tif",
                    "found no such file, expected one for each band: restore it, or take the image "
                    "out of the list",
                )
                for band in missing
            ]
        else:
            items.append(_item(image, files, folder.references[0]))
    return Looked(images, items, grid, absent, problems, dropped, unlisted)


def _grid(folder: Folder, place: Path) -> tuple[Grid | None, list[BadFile]]:
    """The grid of the first Sentinel-2 image."""
    if not folder.references:
        wrong = (
            "found no Sentinel-2 reference, expected a file such as S2_2019-01-24_B04.tif: restore "
            "it, or take the sequence out of the list"
        )
        return None, [BadFile(f"{place}/{folder.path}", wrong)]
    try:
        return grid_of(Source(place, folder.references[0])), []
    except BadFilesError as error:
        return None, list(error.problems)


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
