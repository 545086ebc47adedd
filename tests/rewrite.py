"""Copies of built datasets in which something is different, in the layout of the real ones."""

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
    to: Path,
    metadata: dict[str, Any],
    record: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
) -> Path:
    """Copies a dataset, with other metadata and perhaps other records.

    Args:
      data_dir: where it is built.
      name: "dataset/config/version".
      to: data folder of the copy.
      metadata: fields to replace.
      record: what becomes of a record; every split has one shard.
    """
    folder = to / name
    shutil.copytree(data_dir / name, folder)
    default = Path(name.split("/")[0], ".config")  # name of the default configuration
    if (data_dir / default).exists():
        shutil.copytree(data_dir / default, to / default)
    path = folder / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **metadata}))
    if record is None:
        return to
    info = tfds.builder_from_directory(folder).info
    for split in info.splits:
        (shard,) = folder.glob(f"*-{split}.array_record*")
        records = list(tfds.builder_from_directory(folder).as_data_source(split))
        writer = ArrayRecordWriter(str(shard), "group_size:1")
        for one in records:
            writer.write(info.features.serialize_example(record(one)))
        writer.close()
    return to


def without_split(data_dir: Path, split: str, to: Path) -> Path:
    """Copies a data folder without the files of a split."""
    shutil.copytree(data_dir, to)
    removed = [*to.rglob(f"*-{split}.array_record*"), *to.rglob(f"ids-{split}.txt")]
    assert len(removed) >= 2
    for path in removed:
        path.unlink()
    return to
