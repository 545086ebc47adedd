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
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.core import example_serializer

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import atomic_write
from tfds_builders.bad_files import BadFile, BadFilesError
from tfds_builders.band_statistics import BandMoments
from tfds_builders.process_pool import Tick

Example = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Task:
    """A shard to write.

    Attributes:
      path: where the whole shard will be.
      split: that it belongs to.
      features: of a record.
      read: makes a record of an item; raises `BadFilesError` where it cannot.
      sources: the files that `read` reads for an item, if there are any.
      items: an array whose rows are items.
      index: features of every record that the report keeps, scalars and texts.
    """

    path: Path
    split: str
    features: tfds.features.FeaturesDict
    read: Callable[[Any], Example]
    sources: Callable[[Any], list[Path]] | None
    items: np.ndarray
    index: tuple[str, ...] = ("id",)

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
      stamp: of the raw files when they were read.
      moments: of the backscatter.
      problems: items that could not be read.
      index: for every feature of `Task.index`, its value in every record.
    """

    records: int
    size: int
    checksum: str
    stamp: str
    moments: BandMoments
    problems: tuple[BadFile, ...]
    index: dict[str, list[Any]]


def write(task: Task, tick: Tick) -> Report:
    """Writes a shard and its report, leaving out items that cannot be read.

    Raises:
      InputError: the file cannot be written.
    """
    serializer = example_serializer.ExampleSerializer(task.features.get_serialized_info())
    backscatter = task.features["backscatter"]
    moments = BandMoments.zeros(backscatter.shape[-1])
    problems: list[BadFile] = []
    index: dict[str, list[Any]] = {name: [] for name in task.index}
    checksum, count, when = hashlib.sha256(), 0, stamp(task)
    try:
        with _explained(task.path.parent):
            writer = ArrayRecordWriter(os.fspath(task.partial_path), "group_size:1")
        for item in task.items.tolist():
            tick()
            try:
                example = task.read(item)
            except BadFilesError as error:
                problems.extend(error.bad_files)
                continue
            values = example["backscatter"].astype(backscatter.np_dtype)
            moments += BandMoments.from_patches(values[None])
            encoded = task.features.encode_example({**example, "backscatter": values})
            # without being told, every process writes the features in an order of its own
            record = serializer.get_tf_example(encoded).SerializeToString(deterministic=True)
            _add(checksum, record)
            count += 1
            for name, column in index.items():
                column.append(_plain(example[name]))
            with _explained(task.path.parent):
                writer.write(record)
        with _explained(task.path.parent):
            writer.close()
            _flush(task.partial_path)
            size = task.partial_path.stat().st_size
            report = Report(
                count, size, checksum.hexdigest(), when, moments, tuple(problems), index
            )
            task.partial_path.replace(task.path)
            values = {**dataclasses.asdict(report), "moments": moments.to_json()}
            atomic_write(task.report_path, json.dumps(values).encode())
    finally:
        task.partial_path.unlink(missing_ok=True)
    return report


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Says what a failure to write means; the record writer raises RuntimeError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{folder} cannot be written ({first_line(error)}): check that the folder can be "
            "written and has room; the same command goes on where it was"
        ) from error


def verify(task: Task, report: Report, tick: Tick) -> str | None:
    """Reads a shard back; says what differs from its report, or None."""
    checksum, count = hashlib.sha256(), 0
    try:
        reader = ArrayRecordReader(os.fspath(task.path))
        for index in range(reader.num_records()):
            tick()
            _add(checksum, reader.read([index])[0])
            count += 1
        reader.close()
    except (OSError, RuntimeError, ValueError, IndexError) as error:
        return f"it cannot be read ({first_line(error)})"
    if count != report.records:
        return f"found {count} records, expected {report.records}"
    if checksum.hexdigest() != report.checksum:
        return "found other records than were written"
    return None


def stamp(task: Task) -> str:
    """Of size and time of the raw files of a shard: another where one of them has changed."""
    digest = hashlib.sha256()
    if task.sources:
        for path in dict.fromkeys(
            path for item in task.items.tolist() for path in task.sources(item)
        ):
            try:
                seen = path.stat()
                digest.update(f"{path} {seen.st_size} {seen.st_mtime_ns}\n".encode())
            except OSError:
                digest.update(f"{path} is not there\n".encode())
    return digest.hexdigest()


def read_report(task: Task) -> Report | None:
    """The report of a shard that is whole, or None."""
    try:
        values = json.loads(task.report_path.read_text())
        report = Report(
            values["records"],
            values["size"],
            values["checksum"],
            values["stamp"],
            BandMoments.from_json(values["moments"]),
            tuple(BadFile(*problem) for problem in values["problems"]),
            {name: values["index"][name] for name in task.index},
        )
        return report if task.path.stat().st_size == report.size else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(task: Task) -> None:
    """Removes a shard and its report."""
    for path in (task.report_path, task.path, task.partial_path):
        path.unlink(missing_ok=True)


def _plain(value: Any) -> Any:
    """A scalar as JSON has it."""
    return value.item() if isinstance(value, np.generic) else value


def _add(checksum: Any, record: bytes) -> None:
    checksum.update(len(record).to_bytes(8, "little"))
    checksum.update(record)


def _flush(path: Path) -> None:
    """Makes sure that the file is on the disk before it is said to be whole."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
