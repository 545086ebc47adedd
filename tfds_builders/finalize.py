"""Turn complete shards into a dataset that TFDS reads: splits, metadata, file names."""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import splits

from sar_mixmae_jax.data.metadata import ids_file
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile, write_table
from tfds_builders.band_statistics import BandMoments, dataset_statistics
from tfds_builders.plan import Pairs, Plan
from tfds_builders.shards import WrittenShard

BAD_FILES = "bad_files.tsv"
"""File in the dataset's folder that lists the raw files that were left out as unusable."""

UNUSED_FILES = "unused_files.tsv"
"""File in the dataset's folder that lists the raw files that are no part of it, and why."""

CROSS_AND_CO = (("VH", "VV"), ("HV", "HH"))
"""Cross- and co-polarised band of each transmitted polarisation."""


def count_records(written: Sequence[WrittenShard]) -> dict[str, int]:
    """Return the number of records of every split that has a shard."""
    counts: dict[str, int] = {}
    for task, report in written:
        counts[task.split] = counts.get(task.split, 0) + report.records
    return counts


def check_nonempty_splits(counts: Mapping[str, int], notes: Sequence[str]) -> None:
    """Raise if a split is empty, since TFDS cannot read one.

    Args:
      counts: number of records of every split.
      notes: notes of the plan, which may explain it.

    Raises:
      InputError: a split is empty.
    """
    explanation = f" ({'; '.join(notes)})" if notes else ""
    for split, count in counts.items():
        if not count:
            raise InputError(
                f"split {split} has no patch that can be used, expected at least one{explanation}: "
                "check the raw files, the lists of the splits, and options that leave patches out"
            )


def set_metadata(
    builder: tfds.core.DatasetBuilder,
    plan: Plan,
    written: Sequence[WrittenShard],
    bad_files: Sequence[BadFile],
    order_seed: int,
) -> None:
    """Set splits and metadata of a builder.

    Args:
      builder: builder of the dataset.
      plan: plan of the dataset.
      written: all shards.
      bad_files: raw files that were left out.
      order_seed: seed of the order of the records.

    Raises:
      InputError: the dataset has no published statistics and none can be computed from `train`, or
        a split has no pairs.
    """
    metadata = builder.info.metadata
    bands = metadata["bands"]
    infos, moments = [], {}
    for split in plan.items:
        reports = [report for task, report in written if task.split == split and report.records]
        infos.append(
            splits.SplitInfo(
                name=split,
                shard_lengths=[report.records for report in reports],
                num_bytes=sum(report.size for report in reports),
                filename_template=builder._get_filename_template(split_name=split),
            )
        )
        moments[split] = sum((report.moments for report in reports), BandMoments.zeros(len(bands)))
    builder.info.set_splits(splits.SplitDict(infos))
    metadata.update(plan.metadata)
    metadata["notes"] = list(plan.notes)
    metadata["order_seed"] = order_seed
    level = dict(zip(bands, moments["train"].mean(), strict=True))
    for cross, co in CROSS_AND_CO:
        if cross in level and co in level and level[cross] > level[co]:
            metadata["notes"].append(
                f"{cross} is {level[cross] - level[co]:.1f} dB brighter than {co} on average, "
                "which is rare: are the bands the wrong way round?"
            )
    metadata["measured"] = {split: sums.describe() for split, sums in moments.items()}
    if metadata["statistics"] is None:
        metadata["statistics"] = dataset_statistics(moments["train"], "global", ["train"], bands)
    num_planned = sum(len(items) for items in plan.items.values())
    num_records = sum(count_records(written).values())
    metadata["left_out"] = {
        "patches": num_planned - num_records + plan.num_dropped,
        "bad_files": len(bad_files),
    }
    metadata["checksum"] = dataset_checksum(written)
    if plan.summarise:
        facts, notes = plan.summarise(
            {split: collect_index(written, split) for split in plan.items}
        )
        metadata.update(facts)
        metadata["notes"] += notes
    if plan.make_pairs:
        pairs = {
            split: plan.make_pairs(split, collect_index(written, split)) for split in plan.items
        }
        check_nonempty_pairs(pairs)
        metadata["pairs"] = {
            split: {name: list(values) for name, values in of_split.columns.items()}
            for split, of_split in pairs.items()
        }
        metadata["pairs_left_out"] = {
            split: dict(of_split.left_out) for split, of_split in pairs.items()
        }


def collect_index(written: Sequence[WrittenShard], split: str) -> dict[str, list[Any]]:
    """Return the index columns of a split, in the order of its records."""
    columns: dict[str, list[Any]] = {}
    for task, report in written:
        if task.split == split:
            for name, values in report.index.items():
                columns.setdefault(name, []).extend(values)
    return columns


def check_nonempty_pairs(pairs: Mapping[str, Pairs]) -> None:
    """Raise if a split has no pair.

    Args:
      pairs: pairs of every split.

    Raises:
      InputError: a split has none; the message has the reasons.
    """
    for split, of_split in pairs.items():
        if not len(of_split.columns["before"]):
            reasons = ", ".join(f"{reason} {count}" for reason, count in of_split.left_out.items())
            raise InputError(
                f"split {split} has no pair that can be used ({reasons or 'nothing left out'}): "
                "expected a dry and another date of at least one sequence"
            )


def dataset_checksum(written: Sequence[WrittenShard]) -> str:
    """Return the SHA-256 of the checksums of all shards, and so of every record in its order."""
    digest = hashlib.sha256()
    for task, report in written:
        digest.update(f"{task.split} {report.records} {report.checksum}\n".encode())
    return digest.hexdigest()


def link_shards(
    builder: tfds.core.DatasetBuilder,
    written: Sequence[WrittenShard],
    bad_files: Sequence[BadFile],
    unused_files: Sequence[BadFile],
    folder: Path,
) -> None:
    """Link the shards into a folder under the names that TFDS reads; empty shards are left out.

    The shards stay in the staging folder too, so that nothing is lost if the build is killed here.

    Args:
      builder: builder of the dataset, with its splits.
      written: all shards.
      bad_files: raw files that were left out; if any, their table is written too.
      unused_files: raw files that are no part of the dataset; likewise.
      folder: temporary folder of TFDS.
    """
    names: list[str] = []
    for split in dict.fromkeys(shard.task.split for shard in written):
        template = builder._get_filename_template(split_name=split)
        nonempty = [task for task, report in written if task.split == split and report.records]
        for number, task in enumerate(nonempty):
            name = template.sharded_filepath(shard_index=number, num_shards=len(nonempty)).name
            try:
                os.link(task.path, folder / name)
            except OSError:  # a file system without links
                shutil.copyfile(task.path, folder / name)
            names.append(name)
        ids = collect_index(written, split)["id"]
        (folder / ids_file(split)).write_text("".join(f"{name}\n" for name in ids))
    for name, table in ((BAD_FILES, bad_files), (UNUSED_FILES, unused_files)):
        if table:
            write_table(table, folder / name)
    builder.info.metadata["files"] = _checksums(folder, names)


def _checksums(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files, by name; all cores compute them."""

    def digest(name: str) -> str:
        with (folder / name).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor() as threads:
        return dict(zip(names, threads.map(digest, names), strict=True))
