"""BigEarthNet-S1 v1.0: a folder per patch with its labels as JSON, splits as CSV lists."""

import csv
import json
import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.data.bigearthnet import CLASSES_19, to_19
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders import records
from tfds_builders.bad_files import BadFile, bad_file, collect_results, is_utf8
from tfds_builders.bigearthnet_s1 import patch_files
from tfds_builders.bigearthnet_s1.patch_files import band_files, read_patch
from tfds_builders.plan import Plan
from tfds_builders.shards import Example

LISTS = {"train": "train.csv", "validation": "val.csv", "test": "test.csv"}
CAVEAT = "spatially dependent split"
"""The official lists draw all three splits from the same 2x2 blocks of patches."""
NO_SPLIT = "no held-out split"
ADVICE = "or build bigearthnet_s1/v1_unsplit, which takes all patch folders as one split"


def make_plan(root: Path, *, unsplit: bool) -> Plan:
    """Plan the official splits, or all patches as `train`.

    Args:
      root: folder of the patch folders, or one that contains `BigEarthNet-S1-v1.0`; the lists are
        in it, in `splits`, or beside it.
      unsplit: put all patches into `train`, without the lists.

    Raises:
      InputError: patches or lists are missing.
    """
    release = root / "BigEarthNet-S1-v1.0"
    patches = release if release.is_dir() else root
    existing = list_patch_folders(patches)
    if unsplit:
        return Plan(
            {"train": existing},
            read_record,
            source_files,
            (patches,),
            metadata={"caveats": [NO_SPLIT]},
        )
    lists = {
        split: patch_files.find_split_file(patches, name, ADVICE) for split, name in LISTS.items()
    }
    rows = {split: read_split_list(path) for split, path in lists.items()}
    names = {split: of_split[:, 1] for split, of_split in rows.items()}
    problems = [
        *find_wrong_names({lists[split]: names[split] for split in lists}, existing),
        *find_shared_s2_patches({lists[split]: rows[split] for split in lists}),
    ]
    items, assigned = {}, np.array([], existing.dtype)
    for split in lists:
        items[split] = np.setdiff1d(np.intersect1d(names[split], existing), assigned)
        assigned = np.union1d(assigned, items[split])
    notes = [
        f"{len(existing) - len(assigned)} of {len(existing)} patches are in no list, and not used"
    ]
    return Plan(
        items,
        read_record,
        source_files,
        (patches,),
        bad_files=problems,
        num_dropped=sum(map(len, names.values())) - len(assigned),
        metadata={"caveats": [CAVEAT]},
        notes=notes,
    )


def list_patch_folders(root: Path) -> np.ndarray:
    """Return the names of the folders in `root` that are not hidden, sorted, as bytes.

    Raises:
      InputError: none of them is a patch.
    """
    with os.scandir(root) as entries:  # half a million: avoids a stat call for each
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
            raise bad_file(root / name, "found a name that is not UTF-8: rename it")
    return np.array([name.encode() for name in names])


def read_split_list(path: Path) -> np.ndarray:
    """Read an official list, a CSV file `S2 patch,S1 patch` without header.

    Returns:
      (rows, 2) names as bytes.

    Raises:
      InputError: the file cannot be read, or has another form.
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


def find_wrong_names(lists: Mapping[Path, np.ndarray], existing: np.ndarray) -> Iterator[BadFile]:
    """Yield names without a folder, names twice in a list, and names in two lists.

    Args:
      lists: names of the patches in each list; the first list keeps a shared name.
      existing: names of the patch folders.
    """
    earlier: dict[Path, np.ndarray] = {}
    for path, names in lists.items():
        unique, counts = np.unique(names, return_counts=True)
        for name in np.setdiff1d(unique, existing):
            yield BadFile(
                str(path),
                f"names {name.decode()}, which has no folder: restore it, or correct the list",
            )
        for name in unique[counts > 1]:
            yield BadFile(str(path), f"names {name.decode()} more than once: correct the list")
        for earlier_path, earlier_names in earlier.items():
            for name in np.intersect1d(unique, earlier_names):
                yield BadFile(
                    str(path),
                    f"names {name.decode()}, and {earlier_path.name} does too: correct the lists",
                )
        earlier[path] = unique


def find_shared_s2_patches(lists: Mapping[Path, np.ndarray]) -> Iterator[BadFile]:
    """Yield Sentinel-2 patches of two lists with different Sentinel-1 patches.

    They are one place in two splits.

    Args:
      lists: (rows, 2) names of Sentinel-2 and Sentinel-1 patches in each list.
    """
    earlier: dict[Path, np.ndarray] = {}
    for path, rows in lists.items():
        for earlier_path, earlier_rows in earlier.items():
            s2_of_new_s1 = rows[~np.isin(rows[:, 1], earlier_rows[:, 1]), 0]
            for name in np.intersect1d(s2_of_new_s1, earlier_rows[:, 0]):
                yield BadFile(
                    str(path),
                    f"names the Sentinel-2 patch {name.decode()}, and {earlier_path.name} does "
                    "too: correct the lists",
                )
        earlier[path] = rows


def source_files(patches: Path, item: bytes) -> list[Path]:
    """Return the raw files of a patch, given its name."""
    folder = patches / item.decode()
    return [*band_files(folder, BANDS), labels_file(folder)]


def labels_file(folder: Path) -> Path:
    """Path of the labels of a patch, given its folder."""
    return folder / f"{folder.name}_labels_metadata.json"


def read_record(patches: Path, item: bytes) -> Example:
    """Return the record of a patch.

    Args:
      patches: folder of the patch folders.
      item: name of the patch.

    Raises:
      BadFilesError: a file is missing or cannot be used.
    """
    name = item.decode()
    folder = patches / name
    patch, metadata = collect_results(
        partial(read_patch, folder, BANDS),
        partial(read_patch_metadata, labels_file(folder)),
    )
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": records.multi_hot(metadata["labels"], CLASSES_19),
        "s2_name": metadata["s2_name"],
        "scene": metadata["scene"],
        **records.acquisition_features(name, patch.georeference),
    }


def read_patch_metadata(path: Path) -> dict[str, Any]:
    """Read the labels file of a patch.

    Returns:
      "labels" (list of 19-class names), "s2_name" and "scene" ("" if missing).

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
            text.encode()  # raises for values that cannot be stored as text
            if len(text) > 255:
                raise ValueError(f"{name} has {len(text)} characters")
        return {"labels": to_19(labels), **texts}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise bad_file(
            path,
            f"found no usable labels ({first_line(error)}), expected JSON with a list `labels` of "
            "CORINE names: copy the file again",
        ) from error
