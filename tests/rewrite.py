"""Changed copies of built datasets, in the same layout."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter


def rewrite(
    data_dir: Path,
    name: str,
    target: Path,
    metadata: dict[str, Any],
    change_record: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Path:
    """Copy a dataset with changed metadata and records, and return the data folder of the copy.

    Args:
      data_dir: data folder of the dataset.
      name: "dataset/config/version".
      target: data folder of the copy.
      metadata: fields of the metadata to replace.
      change_record: function that returns a changed record; None keeps the records. Otherwise
        every split must have one shard.
    """
    folder = target / name
    shutil.copytree(data_dir / name, folder)
    default = Path(name.split("/")[0], ".config")  # name of the default configuration
    if (data_dir / default).exists():
        shutil.copytree(data_dir / default, target / default)
    path = folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **metadata}))
    if change_record is None:
        return target
    info = tfds.builder_from_directory(folder).info
    for split in info.splits:
        (shard,) = folder.glob(f"*-{split}.array_record*")
        records = list(tfds.builder_from_directory(folder).as_data_source(split))
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for record in records:
            writer.write(info.features.serialize_example(change_record(record)))
        writer.close()
    return target


def copy_without_split(data_dir: Path, split: str, target: Path) -> Path:
    """Copy a data folder without the files of a split and return the copy."""
    shutil.copytree(data_dir, target)
    removed = [*target.rglob(f"*-{split}.array_record*"), *target.rglob(f"ids-{split}.txt")]
    assert len(removed) >= 2
    for path in removed:
        path.unlink()
    return target
