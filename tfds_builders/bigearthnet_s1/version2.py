"""BigEarthNet v2.0 (reBEN): patch folders in folders of scenes, labels and splits in a table."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sar_mixmae_jax.data.bigearthnet import CLASSES_19
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders import records
from tfds_builders.bad_files import BadFile
from tfds_builders.bigearthnet_s1 import patch_files
from tfds_builders.bigearthnet_s1.patch_files import band_files, read_patch
from tfds_builders.plan import Plan
from tfds_builders.shards import Example

TABLE = "metadata.parquet"
SNOW_AND_CLOUD = "metadata_for_patches_with_snow_cloud_or_shadow.parquet"
NAMES = ("s1_name", "patch_id", "s2v1_name", "country")
FLAGS = ("contains_seasonal_snow", "contains_cloud_or_shadow")
COLUMNS = (*NAMES, "labels", "split", *FLAGS)
SPLITS = ("train", "validation", "test")
ADVICE = "from the archive of the dataset"
NOTE = "an encoder that was pretrained on version 1 may have seen patches of test: see v1_name"
MAX_NAME_BYTES = 255
"""Bytes that a name may have; rows of items are as wide as the longest name."""
UNKNOWN_LABELS = np.uint32(2**32 - 1)
"""Label bits of a row without labels, or with labels that are not among the 19."""


def make_plan(root: Path, *, snow_and_cloud: bool) -> Plan:
    """Plan the official splits.

    Args:
      root: folder that contains the tables and `BigEarthNet-S1`, or `BigEarthNet-S1` itself with
        the tables in it or beside it.
      snow_and_cloud: include patches with seasonal snow, cloud or shadow.

    Raises:
      InputError: a table is missing or cannot be read.
    """
    patches = root / "BigEarthNet-S1" if (root / "BigEarthNet-S1").is_dir() else root
    paths = [patch_files.find_split_file(patches, TABLE, ADVICE)]
    table = read_table(paths[0])
    flagged = pc.or_(*(pc.fill_null(table[flag], False) for flag in FLAGS))
    tables = [table.filter(pc.invert(flagged))]
    notes = [NOTE, f"{len(table) - len(tables[0])} rows of {TABLE} have snow, cloud or shadow"]
    if snow_and_cloud:
        paths.append(patch_files.find_split_file(patches, SNOW_AND_CLOUD, ADVICE))
        tables.append(read_table(paths[1]))
    table_number = np.repeat(np.arange(len(tables)), [len(part) for part in tables])
    table = pa.concat_tables(tables)
    items = table_to_items(table)
    in_split = {
        name: pc.fill_null(pc.equal(table["split"], name), False).to_numpy() for name in SPLITS
    }
    wrong = {
        "which has no folder: restore it": ~has_folder(patches, items["s1_name"]),
        "more than once": is_repeated(items["s1_name"]),
        "of a Sentinel-2 patch that it names more than once": is_repeated(items["patch_id"]),
        "with labels that are not of the 19 classes": items["labels"] == UNKNOWN_LABELS,
        f"in another split than {', '.join(SPLITS)}": ~np.any(list(in_split.values()), axis=0),
    }
    problems = [
        BadFile(
            str(paths[table_number[row]]),
            f"names {items['s1_name'][row].decode()}, {reason}; correct the table",
        )
        for reason, rows in wrong.items()
        for row in np.flatnonzero(rows)
    ]
    usable = ~np.any(list(wrong.values()), axis=0)
    return Plan(
        {name: items[usable & rows] for name, rows in in_split.items()},
        read_record,
        source_files,
        (patches,),
        bad_files=problems,
        num_dropped=int((~usable).sum()),
        notes=notes,
    )


def read_table(path: Path) -> pa.Table:
    """Read the columns `COLUMNS` of a table.

    Raises:
      InputError: the table cannot be read, lacks a column, or has names that are too long.
    """
    try:
        if missing := set(COLUMNS) - set(pq.read_schema(path).names):
            raise ValueError(f"it has no column {', '.join(sorted(missing))}")
        table = pq.read_table(path, columns=list(COLUMNS))
        texts = [pa.field(name, pa.string()) for name in (*NAMES, "split")]
        flags = [pa.field(name, pa.bool_()) for name in FLAGS]
        labels = [pa.field("labels", pa.list_(pa.string()))]
        schema = pa.schema([*texts, *flags, *labels])
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)  # includes UTF-8
        for name in texts:
            longest = pc.max(pc.binary_length(table[name.name])).as_py() or 0
            if longest > MAX_NAME_BYTES:
                raise ValueError(f"{name.name} has a text of {longest} bytes")
        return table
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be used as a Parquet table of {', '.join(COLUMNS)} "
            f"({first_line(error)}): download it again"
        ) from error


def table_to_items(table: pa.Table) -> np.ndarray:
    """Return the rows as a structured array: `NAMES` as bytes, and "labels" as `label_bits`."""
    texts = {
        name: pc.fill_null(table[name], "").cast(pa.binary()).to_numpy().astype(np.bytes_)
        for name in NAMES
    }
    dtypes = [(name, values.dtype) for name, values in texts.items()]
    items = np.empty(len(table), dtype=[*dtypes, ("labels", np.uint32)])
    for name, values in texts.items():
        items[name] = values
    items["labels"] = label_bits(table["labels"].combine_chunks())
    return items


def label_bits(labels: pa.ListArray) -> np.ndarray:
    """Return a uint32 per list of class names, with bit i for class i of `CLASSES_19`.

    Lists that are empty or have an unknown name become `UNKNOWN_LABELS`.
    """
    row = pc.list_parent_indices(labels).to_numpy()
    index = pc.index_in(pc.list_flatten(labels), pa.array(CLASSES_19))
    known = pc.is_valid(index).to_numpy(zero_copy_only=False)
    bits = np.zeros(len(labels), np.uint32)
    number = pc.fill_null(index, 0).to_numpy().astype(np.uint32)
    np.bitwise_or.at(bits, row, np.uint32(1) << number)
    bits[row[~known]] = UNKNOWN_LABELS
    return np.where(bits == 0, UNKNOWN_LABELS, bits)


def has_folder(patches: Path, names: np.ndarray) -> np.ndarray:
    """Return a mask of the patches that have a folder; lists the folder of every scene once."""
    scenes = {scene_name(name.decode()) for name in names}
    existing = [
        name.encode()
        for scene in scenes
        if (patches / scene).is_dir()
        for name in os.listdir(patches / scene)
    ]
    return np.isin(names, np.array(existing, dtype=np.bytes_))


def scene_name(name: str) -> str:
    """Return the name of a patch's scene: its own without the last three fields."""
    return name.rsplit("_", 3)[0]


def is_repeated(names: np.ndarray) -> np.ndarray:
    """Return a mask of the names that an earlier row has too."""
    first = np.zeros(len(names), bool)
    first[np.unique(names, return_index=True)[1]] = True
    return ~first


def source_files(patches: Path, item: tuple[bytes, bytes, bytes, bytes, int]) -> list[Path]:
    """Return the raw files of a patch, given its row of items."""
    name = item[0].decode()
    return band_files(patches / scene_name(name) / name, BANDS)


def read_record(patches: Path, item: tuple[bytes, bytes, bytes, bytes, int]) -> Example:
    """Return the record of a patch.

    Args:
      patches: folder of the scenes.
      item: row of items: `NAMES`, and label bits.

    Raises:
      BadFilesError: a file is missing or cannot be used.
    """
    name, s2_name, v1_name, country = (value.decode() for value in item[:4])
    patch = read_patch(patches / scene_name(name) / name, BANDS)
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": np.array([item[4] >> i & 1 for i in range(len(CLASSES_19))], np.uint8),
        "s2_name": s2_name,
        "v1_name": v1_name,
        "country": country,
        **records.acquisition_features(name, patch.georeference),
    }
