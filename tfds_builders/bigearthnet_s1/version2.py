"""BigEarthNet v2.0 (reBEN), Sentinel-1: patch folders below scenes, all else in a Parquet table."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import InputError, first_line
from tfds_builders import records
from tfds_builders.bad_files import BadFile
from tfds_builders.bigearthnet_s1 import patch_files
from tfds_builders.bigearthnet_s1.corine_classes import CLASSES_19
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
LONGEST = 255
"""Bytes of a name; longer ones are no names, and rows are as wide as the longest."""
UNKNOWN = np.uint32(2**32 - 1)
"""Instead of the bits of a row's labels, where there are none, or others than the 19."""


def plan(root: Path, *, snow_and_cloud: bool) -> Plan:
    """The official splits.

    Args:
      root: folder that holds the tables and `BigEarthNet-S1`, or `BigEarthNet-S1` itself with the
        tables in it or beside it.
      snow_and_cloud: whether to include patches with seasonal snow, cloud or shadow.

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
    source = np.repeat(np.arange(len(tables)), [len(one) for one in tables])
    table = pa.concat_tables(tables)
    items = as_items(table)
    split = {name: pc.fill_null(pc.equal(table["split"], name), False) for name in SPLITS}
    in_split = {name: rows.to_numpy() for name, rows in split.items()}
    wrong = {
        "of which there is no folder: restore it": ~is_there(patches, items["s1_name"]),
        "more than once": repeated(items["s1_name"]),
        "of a Sentinel-2 patch that it names more than once": repeated(items["patch_id"]),
        "with labels that are not of the 19 classes": items["labels"] == UNKNOWN,
        f"in another split than {', '.join(SPLITS)}": ~np.any(list(in_split.values()), axis=0),
    }
    problems = [
        BadFile(
            str(paths[source[row]]), f"names {items['s1_name'][row].decode()}, {reason}; mend it"
        )
        for reason, rows in wrong.items()
        for row in np.flatnonzero(rows)
    ]
    usable = ~np.any(list(wrong.values()), axis=0)
    return Plan(
        {name: items[usable & rows] for name, rows in in_split.items()},
        read_record,
        sources,
        (patches,),
        bad_files=problems,
        num_dropped=int((~usable).sum()),
        notes=notes,
    )


def read_table(path: Path) -> pa.Table:
    """The columns `COLUMNS` of a table.

    Raises:
      InputError: it cannot be read, or lacks one.
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
        table.validate(full=True)  # also that texts are UTF-8
        for name in texts:
            longest = pc.max(pc.binary_length(table[name.name])).as_py() or 0
            if longest > LONGEST:
                raise ValueError(f"{name.name} has a text of {longest} bytes")
        return table
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be used as a Parquet table of {', '.join(COLUMNS)} "
            f"({first_line(error)}): download it again"
        ) from error


def as_items(table: pa.Table) -> np.ndarray:
    """The rows as a structured array of bytes; labels as bits of `CLASSES_19`, or `UNKNOWN`."""
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
    """A uint32 for every list: bit i for class i of `CLASSES_19`.

    `UNKNOWN` where a name is not among them or the list is empty, as none of the official ones is.
    """
    row = pc.list_parent_indices(labels).to_numpy()
    index = pc.index_in(pc.list_flatten(labels), pa.array(CLASSES_19))
    known = pc.is_valid(index).to_numpy(zero_copy_only=False)
    bits = np.zeros(len(labels), np.uint32)
    number = pc.fill_null(index, 0).to_numpy().astype(np.uint32)
    np.bitwise_or.at(bits, row, np.uint32(1) << number)
    bits[row[~known]] = UNKNOWN
    return np.where(bits == 0, UNKNOWN, bits)


def is_there(patches: Path, names: np.ndarray) -> np.ndarray:
    """Which patches have a folder; lists every scene's folder once."""
    scenes = {scene_of(name.decode()) for name in names}
    found = [
        name.encode()
        for scene in scenes
        if (patches / scene).is_dir()
        for name in os.listdir(patches / scene)
    ]
    return np.isin(names, np.array(found, dtype=np.bytes_))


def scene_of(name: str) -> str:
    """The folder of a patch's folder: its name without the last three fields."""
    return name.rsplit("_", 3)[0]


def repeated(names: np.ndarray) -> np.ndarray:
    """Which names stood in a row before."""
    first = np.zeros(len(names), bool)
    first[np.unique(names, return_index=True)[1]] = True
    return ~first


def sources(patches: Path, item: tuple[bytes, bytes, bytes, bytes, int]) -> list[Path]:
    """The files of a patch."""
    name = item[0].decode()
    return band_files(patches / scene_of(name) / name, BANDS)


def read_record(patches: Path, item: tuple[bytes, bytes, bytes, bytes, int]) -> Example:
    """The record of a row.

    Raises:
      BadFilesError: a file is missing or is not what it should be.
    """
    name, s2_name, v1_name, country = (value.decode() for value in item[:4])
    patch = read_patch(patches / scene_of(name) / name, BANDS)
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": np.array([item[4] >> i & 1 for i in range(len(CLASSES_19))], np.uint8),
        "s2_name": s2_name,
        "v1_name": v1_name,
        "country": country,
        **records.acquisition_features(name, patch.place),
    }
