"""Writes one shard: records, then a report that says it is whole. Reads it back to verify it.

A shard is written under another name, and renamed when it is closed; its report is written last.
What has no report is not there. So a build that was interrupted goes on with the shards that are
missing, in whichever process, on whichever machine that sees the folder.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core import example_serializer, file_adapters, writer

from sar_mixmae_jax.errors import InputError, first_line
from tfds_builders.moments import Moments
from tfds_builders.problems import BadFilesError, Problem
from tfds_builders.workers import Tick

Example = tuple[str, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Shard:
    """What a shard is to hold: `read` of every item.

    Attributes:
      read: makes a record of an item; raises `BadFilesError` where it cannot.
      items: plain data: a list, or an array whose rows are items.
    """

    read: Callable[[Any], Example]
    items: Any

    def rows(self) -> list[Any]:
        """The items as plain Python values."""
        return self.items.tolist() if isinstance(self.items, np.ndarray) else self.items


@dataclasses.dataclass(frozen=True)
class Task:
    """A shard to write.

    Attributes:
      path: where the whole shard will be.
      shard: what it holds.
      features: of a record.
      file_format: of the file, as TFDS names it.
    """

    path: Path
    shard: Shard
    features: tfds.features.FeaturesDict
    file_format: str

    @property
    def report_path(self) -> Path:
        """Of the report that makes the shard whole."""
        return self.path.with_name(self.path.name + ".json")

    @property
    def partial_path(self) -> Path:
        """Where it is while it is written."""
        return self.path.with_name(self.path.name + ".partial")


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of a shard.

    Attributes:
      records: how many it holds.
      size: of the file in bytes.
      checksum: SHA-256 of the records, each preceded by its length.
      moments: of the backscatter.
      problems: items that could not be read.
    """

    records: int
    size: int
    checksum: str
    moments: Moments
    problems: tuple[Problem, ...]


def write(task: Task, tick: Tick) -> Report:
    """Writes a shard and its report, leaving out items that cannot be read.

    Raises:
      InputError: the file cannot be written.
    """
    serializer = example_serializer.ExampleSerializer(task.features.get_serialized_info())
    backscatter = task.features["backscatter"]
    moments = Moments.none(backscatter.shape[-1])
    problems: list[Problem] = []
    checksum, count = hashlib.sha256(), 0

    def serialised() -> Iterator[tuple[str, bytes]]:
        nonlocal moments, count
        for item in task.shard.rows():
            tick()
            try:
                key, example = task.shard.read(item)
            except BadFilesError as error:
                problems.extend(error.problems)
                continue
            values = example["backscatter"].astype(backscatter.np_dtype)
            moments += Moments.of(values)
            encoded = task.features.encode_example({**example, "backscatter": values})
            # without being told, every process writes the features in an order of its own
            record = serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
            _add(checksum, record)
            count += 1
            yield key, record

    try:
        writer.ExampleWriter(file_adapters.FileFormat.from_value(task.file_format)).write(
            task.partial_path, serialised()
        )
        _flush(task.partial_path)
        size = task.partial_path.stat().st_size
        report = Report(count, size, checksum.hexdigest(), moments, tuple(problems))
        task.partial_path.replace(task.path)
        _write_report(task.report_path, report)
    except (OSError, RuntimeError) as error:  # the record writer raises RuntimeError
        raise InputError(
            f"{task.path.parent} cannot be written ({first_line(error)}): check that the folder "
            "can be written and has room; the same command goes on where it was"
        ) from error
    finally:
        task.partial_path.unlink(missing_ok=True)
    return report


def verify(task: Task, report: Report, tick: Tick) -> str | None:
    """Reads a shard back; says what differs from its report, or None."""
    checksum, count = hashlib.sha256(), 0
    try:
        for record in _records(task):
            tick()
            _add(checksum, record)
            count += 1
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        return f"it cannot be read ({first_line(error)})"
    if count != report.records:
        return f"found {count} records, expected {report.records}"
    if checksum.hexdigest() != report.checksum:
        return "found other records than were written"
    return None


def read_report(task: Task) -> Report | None:
    """The report of a shard that is whole, or None."""
    try:
        values = json.loads(task.report_path.read_text())
        report = Report(
            values["records"],
            values["size"],
            values["checksum"],
            Moments.from_json(values["moments"]),
            tuple(Problem(*problem) for problem in values["problems"]),
        )
        return report if task.path.stat().st_size == report.size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(task: Task) -> None:
    """Removes a shard and its report."""
    for path in (task.report_path, task.path, task.partial_path):
        path.unlink(missing_ok=True)


def _write_report(path: Path, report: Report) -> None:
    values = {**dataclasses.asdict(report), "moments": report.moments.to_json()}
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(json.dumps(values))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _records(task: Task) -> Iterator[bytes]:
    """The serialised records of a shard, in order."""
    if task.file_format == "array_record":
        reader = ArrayRecordReader(os.fspath(task.path))
        try:
            for index in range(reader.num_records()):
                yield reader.read([index])[0]
        finally:
            reader.close()
    else:  # formats of TensorFlow are read by it
        adapter = file_adapters.ADAPTER_FOR_FORMAT[
            file_adapters.FileFormat.from_value(task.file_format)
        ]
        yield from adapter.make_tf_data(task.path).as_numpy_iterator()


def _add(checksum: Any, record: bytes) -> None:
    checksum.update(len(record).to_bytes(8, "little"))
    checksum.update(record)


def _flush(path: Path) -> None:
    """Makes sure that the file is on the disk before it is said to be whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def take(items: Any, indices: np.ndarray) -> Any:
    """Some of the items, in their own order.

    Args:
      items: a list, or an array whose rows are items.
      indices: which.
    """
    chosen = np.sort(indices)
    if isinstance(items, np.ndarray):
        return items[chosen]
    return [items[index] for index in chosen]
