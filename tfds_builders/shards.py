"""Write one shard of a dataset, then a report that marks it as complete; read it back to verify it.

A shard is written under a partial name and renamed when it is closed; its report is written last.
A shard without a report does not count. An interrupted build therefore continues with the missing
shards, in any process, on any machine that has the folder.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write, read_json
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.band_statistics import BandMoments
from tfds_builders.process_pool import Tick

Example = dict[str, Any]
"""Features of a record by name; and `FLOOR_COUNTS`, which is counted and not stored."""

FLOOR_COUNTS = "floor_counts"
"""Optional entry of a record: `units.count_floored`."""


@dataclasses.dataclass(frozen=True)
class ShardTask:
    """A shard to write.

    Attributes:
      path: path of the complete shard.
      split: name of its split.
      features: features of a record.
      read: function of an item that returns a record, or raises `BadFilesError`.
      source_files: function of an item that returns the raw files that `read` reads; None: there
        are none.
      items: an array with one row per record.
      index: names of the scalar and text features that the report keeps of every record.
    """

    path: Path
    split: str
    features: tfds.features.FeaturesDict
    read: Callable[[Any], Example]
    source_files: Callable[[Any], list[Path]] | None
    items: np.ndarray
    index: tuple[str, ...] = ("id",)

    @property
    def report_path(self) -> Path:
        """Path of the report that marks the shard as complete."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def partial_path(self) -> Path:
        """Path of the shard while it is written."""
        return self.path.with_name(self.path.name + ".partial")


@dataclasses.dataclass(frozen=True)
class ShardReport:
    """Contents of a complete shard.

    Attributes:
      records: number of records.
      size: size of the file, bytes.
      checksum: SHA-256 of the records, each preceded by its length.
      source_stamp: `source_stamp` of the raw files before they were read.
      moments: sums over the backscatter of the records.
      bad_files: raw files of the items that could not be read.
      index: values of every feature of `ShardTask.index`, one per record.
    """

    records: int
    size: int
    checksum: str
    source_stamp: str
    moments: BandMoments
    bad_files: tuple[BadFile, ...]
    index: dict[str, list[Any]]


class WrittenShard(NamedTuple):
    """A complete shard.

    Attributes:
      task: description of the shard.
      report: contents of the shard.
    """

    task: ShardTask
    report: ShardReport


def write_shard(task: ShardTask, tick: Tick) -> ShardReport:
    """Write a shard and its report without the items that cannot be read.

    Args:
      task: the shard.
      tick: called once per item.

    Raises:
      InputError: the file cannot be written.
    """
    serializer = example_serializer.ExampleSerializer(task.features.get_serialized_info())
    backscatter = task.features["backscatter"]
    moments = BandMoments.zeros(backscatter.shape[-1])
    bad_files: list[BadFile] = []
    index: dict[str, list[Any]] = {name: [] for name in task.index}
    checksum, count, stamp = hashlib.sha256(), 0, source_stamp(task)
    try:
        with _write_errors(task.path.parent):
            writer = ArrayRecordWriter(os.fspath(task.partial_path), "group_size:1")
        for item in task.items.tolist():
            tick()
            try:
                example = task.read(item)
            except BadFilesError as error:
                bad_files.extend(error.bad_files)
                continue
            values = example["backscatter"].astype(backscatter.np_dtype)
            moments += BandMoments.from_patches(values[None], example.pop(FLOOR_COUNTS, None))
            encoded = task.features.encode_example({**example, "backscatter": values})
            # by default the order of the features differs from process to process
            record = serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
            _update(checksum, record)
            count += 1
            for name, column in index.items():
                column.append(_to_json(example[name]))
            with _write_errors(task.path.parent):
                writer.write(record)
        with _write_errors(task.path.parent):
            writer.close()
            _fsync(task.partial_path)
            size = task.partial_path.stat().st_size
            report = ShardReport(
                count, size, checksum.hexdigest(), stamp, moments, tuple(bad_files), index
            )
            task.partial_path.replace(task.path)
            content = {**dataclasses.asdict(report), "moments": moments.to_json()}
            atomic_write(task.report_path, json.dumps(content).encode())
    finally:
        task.partial_path.unlink(missing_ok=True)
    return report


@contextmanager
def _write_errors(folder: Path) -> Iterator[None]:
    """Turn failures to write into an InputError; the record writer raises RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{folder} cannot be written ({first_line(error)}): check that the folder can be "
            "written and has room; the same command continues the build"
        ) from error


def verify_shard(task: ShardTask, report: ShardReport, tick: Tick) -> str | None:
    """Read a shard back.

    Args:
      task: the shard.
      report: contents that the shard was written with.
      tick: called once per record.

    Returns:
      The difference between shard and report, or None.
    """
    checksum, count = hashlib.sha256(), 0
    try:
        reader = ArrayRecordReader(os.fspath(task.path))
        for index in range(reader.num_records()):
            tick()
            _update(checksum, reader.read([index])[0])
            count += 1
        reader.close()
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        return f"it cannot be read ({first_line(error)})"
    if count != report.records:
        return f"found {count} records, expected {report.records}"
    if checksum.hexdigest() != report.checksum:
        return "found other records than were written"
    return None


def source_stamp(task: ShardTask) -> str:
    """Return a digest of size and time of the raw files of a shard, to notice changed files."""
    digest = hashlib.sha256()
    if task.source_files:
        for path in dict.fromkeys(
            path for item in task.items.tolist() for path in task.source_files(item)
        ):
            try:
                status = path.stat()
                digest.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{path} is not there\n".encode())
    return digest.hexdigest()


def read_report(task: ShardTask) -> ShardReport | None:
    """Return the report of a shard, or None if the shard is not complete."""
    try:
        content = read_json(task.report_path)
        report = ShardReport(
            content["records"],
            content["size"],
            content["checksum"],
            content["source_stamp"],
            BandMoments.from_json(content["moments"]),
            tuple(BadFile(*entry) for entry in content["bad_files"]),
            {name: content["index"][name] for name in task.index},
        )
        return report if task.path.stat().st_size == report.size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove_shard(task: ShardTask) -> None:
    """Remove a shard and its report."""
    for path in (task.report_path, task.path, task.partial_path):
        path.unlink(missing_ok=True)


def _to_json(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _update(checksum: Any, record: bytes) -> None:
    checksum.update(len(record).to_bytes(8, "little"))
    checksum.update(record)


def _fsync(path: Path) -> None:
    """Flush a file to the disk, before its report marks it as complete."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
