"""Files of Sen1Floods11: images and masks of water, official lists, dates of the events."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sar_mixmae_jax.data.metadata import BANDS, NOT_LABELLED
from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import read_json
from tfds_builders import geotiff, units
from tfds_builders.bad_files import BadFile, bad_file
from tfds_builders.plan import Columns, Plan
from tfds_builders.shards import Example
from tfds_builders.zero_regions import border_zeros, zero_or_nodata

LABELS = (NOT_LABELLED, 0, 1)
"""Values of a mask: not labelled, no water, water."""

LISTS = {"train": "train", "validation": "valid", "test": "test", "bolivia": "bolivia"}
"""Split -> part of the name of its list."""

HELD_OUT_EVENT = "Bolivia"
LOCATIONS = {"mekong": "cambodia"}
"""Names of events in file names and in the table of events, where they differ."""

METADATA = "Sen1Floods11_Metadata.geojson"
EVENTS_CAVEAT = "train, validation and test share their ten events: only bolivia is an unseen event"
WEAK_CAVEAT = "training masks are thresholds of the images"
CHIPS_PER_SHARD = 64
"""Records of a shard, of 2.4 MB each."""

INDEX = ("labelled", "labelled_water", "unmeasured_water")
"""Features of the records that `count_labels` reads."""


class Kind(NamedTuple):
    """A kind of labels.

    Attributes:
      folder: folder of the kind, below `data/flood_events`.
      images: folder of the images and suffix of their names.
      masks: folder of the masks and suffix of their names.
    """

    folder: str
    images: str
    masks: str


KINDS = HAND, WEAK = (
    Kind("HandLabeled", "S1Hand", "LabelHand"),
    Kind("WeaklyLabeled", "S1Weak", "S1OtsuLabelWeak"),
)


def make_plan(root: Path, size: int, *, weak: bool) -> Plan:
    """Plan the official splits.

    Args:
      root: folder `v1.1`, or one that contains it.
      size: side of a chip in pixels.
      weak: whether weakly labelled chips are the training split.

    Raises:
      InputError: folders or lists are missing, or a list has another form.
    """
    release = find_release(root)
    lists = {split: _list_path(release, part) for split, part in LISTS.items()}
    names = {split: read_list(path) for split, path in lists.items()}
    problems, rows = list(_repeated_names(lists, names)), sum(map(len, names.values()))
    seen: set[str] = set()
    for split in LISTS:
        names[split] = [name for name in dict.fromkeys(names[split]) if name not in seen]
        seen.update(names[split])
    listed, notes = len(seen), []
    chips = {split: [(0, name) for name in of_split] for split, of_split in names.items()}
    hand = _chip_names(release, HAND)
    if unlisted := len(set(hand) - seen):
        notes.append(f"{unlisted} of {len(hand)} hand-labelled chips are in no list, and not used")
    if weak:
        found = _chip_names(release, WEAK)
        if not found:
            raise InputError(
                f"{_folder(release, WEAK)}: found no weakly labelled chip, expected files such "
                "as Ghana_53713_S1Weak.tif: download them, or build sen1floods11/hand"
            )
        usable = [name for name in found if event_of(name) != HELD_OUT_EVENT and name not in seen]
        chips["train"] = [(1, name) for name in usable]
        notes.append(
            f"{len(found) - len(usable)} weakly labelled chips are left out: of {HELD_OUT_EVENT}, "
            "which is held out, or with the name of a hand-labelled chip"
        )
    for split in [split for split, of_split in chips.items() if not of_split]:
        if split == "train":
            raise InputError(f"{lists[split]}: found no chip: copy the official list again")
        del chips[split]
        notes.append(f"split {split} is left out: its list is empty")
    dates = read_dates(release)
    if not dates:
        notes.append(f"{METADATA} is not there: the dates of the acquisitions are not known")
    elif undated := {
        event_of(name)
        for of_split in chips.values()
        for _, name in of_split
        if location_of(name) not in dates
    }:
        notes.append(f"{METADATA} has no date of {', '.join(sorted(undated))}")
    width = max(len(name) for of_split in chips.values() for _, name in of_split)
    dtype = np.dtype([("weak", np.int8), ("name", f"S{width}")])
    return Plan(
        {
            split: np.array([(kind, name.encode()) for kind, name in of_split], dtype)
            for split, of_split in chips.items()
        },
        read_record,
        source_files,
        (release, size, dates),
        records_per_shard=CHIPS_PER_SHARD,
        bad_files=problems,
        num_dropped=rows - listed,
        index_features=INDEX,
        summarise=count_labels,
        metadata={"caveats": [EVENTS_CAVEAT, *([WEAK_CAVEAT] if weak else [])]},
        notes=notes,
    )


def find_release(root: Path) -> Path:
    """Return the folder that holds `data/flood_events` and `splits`.

    Raises:
      InputError: there is none.
    """
    for folder in (root, root / "v1.1", root / "sen1floods11" / "v1.1"):
        if (folder / "data/flood_events").is_dir():
            return folder
    raise InputError(
        f"{root}: found no folder data/flood_events, expected the layout of Sen1Floods11 v1.1: "
        "name the folder v1.1 as --manual_dir"
    )


def _folder(release: Path, kind: Kind) -> Path:
    return release / "data/flood_events" / kind.folder


def _list_path(release: Path, part: str) -> Path:
    return release / "splits/flood_handlabeled" / f"flood_{part}_data.csv"


def read_list(path: Path) -> list[str]:
    """Return the names of the chips of an official list, such as "Ghana_53713".

    Raises:
      InputError: the file cannot be read, or has another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({first_line(error)}): copy the official list there"
        ) from error
    names, suffix = [], f"_{HAND.images}.tif"
    for number, row in enumerate(csv.reader(text.splitlines()), start=1):
        if not row:
            continue
        name = row[0].strip()
        if len(row) != 2 or not re.fullmatch(rf"[\w-]+_\w+{re.escape(suffix)}", name):
            raise InputError(
                f"{path}: found {','.join(row)[:100]!r} in row {number}, expected "
                "`EVENT_ID_S1Hand.tif,EVENT_ID_LabelHand.tif` and no header: copy the official "
                "list again"
            )
        names.append(name.removesuffix(suffix))
    return names


def _repeated_names(
    lists: Mapping[str, Path], names: Mapping[str, Sequence[str]]
) -> Iterator[BadFile]:
    """Yield names that occur twice, in one list or in two."""
    first: dict[str, str] = {}
    for split, of_split in names.items():
        for name in of_split:
            if name in first:
                where = "twice" if first[name] == split else f"in {lists[first[name]].name} too"
                yield BadFile(str(lists[split]), f"found {name} {where}, expected it once")
            first.setdefault(name, split)


def _chip_names(release: Path, kind: Kind) -> list[str]:
    suffix = f"_{kind.images}.tif"
    paths = (_folder(release, kind) / kind.images).glob(f"*{suffix}")
    return sorted(path.name.removesuffix(suffix) for path in paths)


def event_of(name: str) -> str:
    """Return the event of a chip; it may hold hyphens, and the number follows the last "_"."""
    return name.rsplit("_", 1)[0]


def read_dates(release: Path) -> dict[str, str]:
    """Return the day of the acquisition by location, in letters only; {} without the table.

    Raises:
      InputError: the table is damaged.
    """
    path = release / METADATA
    if not path.is_file():
        return {}
    try:
        events = [entry["properties"] for entry in read_json(path)["features"]]
        return {
            _letters(event["location"]): date.fromisoformat(
                str(event["s1_date"])[:10].replace("/", "-")
            ).isoformat()
            for event in events
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read as the table of events ({first_line(error)}): copy it again"
        ) from error


def _letters(name: str) -> str:
    return re.sub(r"[^a-z]", "", name.lower())


def location_of(name: str) -> str:
    """Return the location of a chip in the table of events, in letters only."""
    event = _letters(event_of(name))
    return LOCATIONS.get(event, event)


def source_files(release: Path, size: int, dates: Any, item: tuple[int, bytes]) -> list[Path]:
    """Return the paths of image and mask of a chip."""
    del size, dates
    kind, name = KINDS[item[0]], item[1].decode()
    folder = _folder(release, kind)
    return [
        folder / part / f"{name}_{part}.tif" for part in (kind.images, kind.masks)
    ]  # fmt: skip


def read_record(
    release: Path, size: int, dates: Mapping[str, str], item: tuple[int, bytes]
) -> Example:
    """Read a chip; one without any measurement or label is a record too.

    Args:
      release: folder of the dataset.
      size: side of a chip in pixels.
      dates: of `read_dates`.
      item: number of the kind, name of the chip.

    Raises:
      BadFilesError: a file is missing, of another shape, without descriptions of its bands, not in
        dB, on another grid, or has unknown labels.
    """
    image_path, mask_path = source_files(release, size, dates, item)
    with geotiff.open_raster(image_path) as raster:
        _check_shape(image_path, (raster.count, *raster.shape), (len(BANDS), size, size))
        if sorted(raster.descriptions, key=str) != sorted(BANDS):
            raise bad_file(
                image_path,
                f"found bands described as {raster.descriptions}, expected VV and VH: download the "
                "chip of v1.1 again",
            )
        bands = [raster.descriptions.index(band) + 1 for band in BANDS]
        backscatter = np.stack([geotiff.read_band(raster, band) for band in bands], axis=-1)
        grid = geotiff.georeference(raster)
    summary = units.summarise(backscatter)
    if summary.valid and (reason := units.find_unit_error(summary, "dB")):
        raise bad_file(image_path, reason)
    with geotiff.open_raster(mask_path) as raster:
        _check_shape(mask_path, (raster.count, *raster.shape), (1, size, size))
        labels, mask_grid = raster.read(1), geotiff.georeference(raster)
    if not geotiff.same_grid(grid, mask_grid):
        raise bad_file(
            mask_path,
            f"found the grid {tuple(mask_grid)}, expected that of {image_path.name}, "
            f"{tuple(grid)}: download both again",
        )
    if unknown := sorted(set(np.unique(labels).tolist()) - set(LABELS)):
        raise bad_file(
            mask_path,
            f"found the labels {unknown[:5]}, expected {', '.join(map(str, LABELS))} (not "
            "labelled, no water, water): download it again",
        )
    backscatter[border_zeros(zero_or_nodata(backscatter))] = np.nan
    name = item[1].decode()
    measured = np.isfinite(backscatter).all(-1)
    return {
        "id": name,
        "backscatter": backscatter,
        "water": labels.astype(np.int8),
        "event": event_of(name),
        "labelled": np.int32((labels != NOT_LABELLED).sum()),
        "labelled_water": np.int32((labels == 1).sum()),
        "unmeasured_water": np.int32(((labels == 1) & ~measured).sum()),
        "time": dates.get(location_of(name), ""),
        "crs": grid.crs,
        "transform": np.array(grid.transform),
    }


def _check_shape(path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise bad_file(
            path, f"found {shape} (bands, rows, columns), expected {expected}: download it again"
        )


def count_labels(columns: Mapping[str, Columns]) -> tuple[dict[str, Any], list[str]]:
    """Return counts of labelled pixels by split as metadata, and sentences about gaps.

    Args:
      columns: `INDEX` of the records of every split.
    """
    counts, notes = {}, []
    for split, index in columns.items():
        labelled, water, lost = (np.array(index[name], np.int64) for name in INDEX)
        counts[split] = {
            "chips": len(labelled),
            "unlabelled_chips": int((labelled == 0).sum()),
            "labelled_pixels": int(labelled.sum()),
            "water_pixels": int(water.sum()),
            "unmeasured_water_pixels": int(lost.sum()),
        }
        if counts[split]["unlabelled_chips"]:
            notes.append(
                f"{split}: {counts[split]['unlabelled_chips']} chips have no labelled pixel"
            )
        if lost.any():
            notes.append(
                f"{split}: {lost.sum():,} of {water.sum():,} pixels labelled water, in "
                f"{int((lost > 0).sum())} chips, have no measurement"
            )
        if labelled.any() and not 0 < water.sum() < labelled.sum():
            notes.append(f"{split}: labelled pixels are of one class")
    return {"labels": counts}, notes
