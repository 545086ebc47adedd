"""BigEarthNet-S1 v1.0: patch folders side by side, labels beside the bands, splits in CSV lists."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders import records
from tfds_builders.bad_files import BadFile, bad_file, collect_results, is_utf8
from tfds_builders.bigearthnet_s1 import patch_files
from tfds_builders.bigearthnet_s1.corine_classes import CLASSES_19, to_19
from tfds_builders.bigearthnet_s1.patch_files import band_files, read_patch
from tfds_builders.plan import Plan
from tfds_builders.shards import Example

LISTS = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
CAVEAT = "spatially dependent split"
"""The official lists draw all three splits from the same 2x2 blocks of patches."""
NO_SPLIT = "no held-out split"
ADVICE = "or build bigearthnet_s1/v1_unsplit, which takes all patch folders as one split"


def plan(root: Path, *, unsplit: bool) -> Plan:
    """The official splits, or all patches as `train`.

    Args:
      root: folder of the patch folders, or one that holds `BigEarthNet-S1-v1.0`; with the lists in
        it, in `splits`, or beside it.
      unsplit: whether to do without the lists.

    Raises:
      InputError: there are no patches, or no lists.
    """
    named = root / "BigEarthNet-S1-v1.0"
    patches = named if named.is_dir() else root
    there = patch_folders(patches)
    if unsplit:
        return Plan(
            {"train": there}, read_record, sources, (patches,), metadata={"caveats": [NO_SPLIT]}
        )
    lists = {
        split: patch_files.find_split_file(patches, name, ADVICE) for split, name in LISTS.items()
    }
    rows = {split: read_list(path) for split, path in lists.items()}
    names = {split: both[:, 1] for split, both in rows.items()}
    problems = [
        *wrong_names({lists[split]: names[split] for split in lists}, there),
        *shared_s2({lists[split]: rows[split] for split in lists}),
    ]
    items, taken = {}, np.array([], there.dtype)
    for split in lists:
        items[split] = np.setdiff1d(np.intersect1d(names[split], there), taken)
        taken = np.union1d(taken, items[split])
    notes = [f"{len(there) - len(taken)} of {len(there)} patches are in no list, and not used"]
    return Plan(
        items,
        read_record,
        sources,
        (patches,),
        bad_files=problems,
        num_dropped=sum(map(len, names.values())) - len(taken),
        metadata={"caveats": [CAVEAT]},
        notes=notes,
    )


def patch_folders(root: Path) -> np.ndarray:
    """Names of the folders right below `root`, sorted, as bytes; hidden ones are passed over.

    Raises:
      InputError: none of them is a patch.
    """
    with os.scandir(root) as entries:  # half a million: names only, and no call for each
        names = sorted(
            entry.name
            for entry in entries
            if not entry.name.startswith((".", "__"))
            and entry.name != "splits"
            and (entry.is_dir() or entry.is_symlink())
        )
    if not any(os.path.isfile(path) for name in names for path in band_files(root / name, BANDS)):
        raise InputError(
            f"{root}: found no patch folder among {len(names)} folders, expected folders such as "
            "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48: name the folder that holds them"
        )
    for name in names:
        if not is_utf8(name):
            raise bad_file(root / name, "found a name that is no UTF-8: rename it")
    return np.array([name.encode() for name in names])


def read_list(path: Path) -> np.ndarray:
    """The rows of a headerless list `S2 patch,S1 patch`: (rows, 2) names as bytes.

    Raises:
      InputError: it cannot be read, or is of another form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(keepends=True)) if any(row)]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({first_line(error)}): copy it again") from error
    for number, row in enumerate(rows, start=1):
        if len(row) != 2 or not row[1].strip().startswith("S1"):
            raise InputError(
                f"{path}: found {','.join(row)[:100]!r} in row {number}, expected `S2 patch,S1 "
                "patch` and no header: copy the official list again"
            )
    if not rows:
        raise InputError(f"{path}: found no rows: copy the official list again")
    return np.array([[name.strip().encode() for name in row] for row in rows])


def wrong_names(lists: Mapping[Path, np.ndarray], there: np.ndarray) -> Iterator[BadFile]:
    """Names without a folder, twice in a list, or in two lists (the first one keeps them)."""
    before: dict[Path, np.ndarray] = {}
    for path, names in lists.items():
        unique, counts = np.unique(names, return_counts=True)
        for name in np.setdiff1d(unique, there):
            yield BadFile(
                str(path),
                f"names {name.decode()}, of which there is no folder: restore it, or mend the list",
            )
        for name in unique[counts > 1]:
            yield BadFile(str(path), f"names {name.decode()} more than once: mend the list")
        for other, others in before.items():
            for name in np.intersect1d(unique, others):
                yield BadFile(
                    str(path), f"names {name.decode()}, and {other.name} does too: mend the lists"
                )
        before[path] = unique


def shared_s2(lists: Mapping[Path, np.ndarray]) -> Iterator[BadFile]:
    """Sentinel-2 patches of two lists with different Sentinel-1 names: one place in two splits."""
    before: dict[Path, np.ndarray] = {}
    for path, rows in lists.items():
        for other, others in before.items():
            apart = rows[~np.isin(rows[:, 1], others[:, 1]), 0]
            for name in np.intersect1d(apart, others[:, 0]):
                yield BadFile(
                    str(path),
                    f"names the Sentinel-2 patch {name.decode()}, and {other.name} does too: mend "
                    "the lists",
                )
        before[path] = rows


def sources(patches: Path, item: bytes) -> list[Path]:
    """The files of a patch."""
    folder = patches / item.decode()
    return [*band_files(folder, BANDS), labels_file(folder)]


def labels_file(folder: Path) -> Path:
    """Where the labels of a patch are."""
    return folder / f"{folder.name}_labels_metadata.json"


def read_record(patches: Path, item: bytes) -> Example:
    """The record of a patch folder.

    Raises:
      BadFilesError: a file is missing or is not what it should be.
    """
    name = item.decode()
    folder = patches / name
    patch, facts = collect_results(
        partial(read_patch, folder, BANDS),
        partial(read_metadata, labels_file(folder)),
    )
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": records.multi_hot(facts["labels"], CLASSES_19),
        "s2_name": facts["s2_name"],
        "scene": facts["scene"],
        **records.acquisition_features(name, patch.place),
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """`labels` (19-class names), `s2_name` and `scene` of a patch's JSON; "" where it says not.

    Raises:
      BadFilesError: the file is missing, is not JSON, or names an unknown class.
    """
    try:
        if not os.path.isfile(path):
            raise FileNotFoundError(path.name)
        values = json.loads(path.read_text(encoding="utf-8-sig"))
        labels = values["labels"]
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise TypeError(f"labels is {labels!r}")
        texts = {
            "s2_name": values.get("corresponding_s2_patch") or "",
            "scene": values.get("scene_source") or "",
        }
        for name, text in texts.items():
            text.encode()  # of what is no text, or cannot be stored as such
            if len(text) > 255:
                raise ValueError(f"{name} has {len(text)} characters")
        return {"labels": to_19(labels), **texts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad_file(
            path,
            f"found no usable labels ({first_line(error)}), expected JSON with a list `labels` of "
            "CORINE names: copy the file again",
        ) from error
