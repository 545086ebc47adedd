"""From whole shards to a dataset that TFDS reads: splits, metadata, names of files."""

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensorflow_datasets.core import splits

from sar_mixmae_jax.data.metadata import BANDS, ids_file
from sar_mixmae_jax.utils.errors import InputError
from tfds_builders.bad_files import BadFile, write_table
from tfds_builders.band_statistics import BandMoments, dataset_statistics
from tfds_builders.plan import Pairs, Plan

if TYPE_CHECKING:
    from tfds_builders.patch_builder import PatchBuilder, Written


BAD_FILES = "bad_files.tsv"


def records_of(written: Sequence["Written"]) -> dict[str, int]:
    """How many records each split has."""
    counts: dict[str, int] = {}
    for task, report in written:
        counts[task.split] = counts.get(task.split, 0) + report.records
    return counts


def check_splits(counts: Mapping[str, int], notes: Sequence[str]) -> None:
    """Refuses empty splits, which nobody can read.

    Args:
      counts: records of each split.
      notes: of the plan, which may say why.

    Raises:
      InputError: names one.
    """
    told = f" ({'; '.join(notes)})" if notes else ""
    for split, count in counts.items():
        if not count:
            raise InputError(
                f"split {split} has no patch that can be used, expected at least one{told}: check "
                "the raw files, the lists of the splits, and options that leave patches out"
            )


def describe(
    builder: "PatchBuilder", plan: Plan, written: Sequence["Written"], problems: Sequence[BadFile]
) -> None:
    """Sets the splits and the metadata of a builder.

    Raises:
      InputError: `train` cannot be standardised with its own statistics, and has no others.
    """
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
        moments[split] = sum((report.moments for report in reports), BandMoments.zeros(len(BANDS)))
    builder.info.set_splits(splits.SplitDict(infos))
    metadata = builder.info.metadata
    metadata.update(plan.metadata)
    metadata["notes"] = list(plan.notes)
    metadata["order_seed"] = builder.settings.order_seed
    vh, vv = moments["train"].mean()
    if vh > vv:
        metadata["notes"].append(
            f"VH is {vh - vv:.1f} dB brighter than VV on average, which is rare: are the bands the "
            "wrong way round?"
        )
    metadata["measured"] = {split: values.describe() for split, values in moments.items()}
    if metadata["statistics"] is None:
        metadata["statistics"] = dataset_statistics(moments["train"], "global", ["train"], BANDS)
    planned = sum(len(items) for items in plan.items.values())
    records = sum(records_of(written).values())
    metadata["left_out"] = {
        "patches": planned - records + plan.num_dropped,
        "bad_files": len(problems),
    }
    metadata["checksum"] = checksum(written)
    if plan.make_pairs:
        made = {split: plan.make_pairs(split, index_of(written, split)) for split in plan.items}
        check_pairs(made)
        metadata["pairs"] = {
            split: {name: list(values) for name, values in pairs.columns.items()}
            for split, pairs in made.items()
        }
        metadata["pairs_left_out"] = {split: dict(one.left_out) for split, one in made.items()}


def index_of(written: Sequence["Written"], split: str) -> dict[str, list[Any]]:
    """What the reports keep of the records of a split, in their order."""
    columns: dict[str, list[Any]] = {}
    for task, report in written:
        if task.split == split:
            for name, values in report.index.items():
                columns.setdefault(name, []).extend(values)
    return columns


def check_pairs(made: Mapping[str, Pairs]) -> None:
    """Refuses splits without a pair.

    Raises:
      InputError: names one, and why its pairs are left out.
    """
    for split, pairs in made.items():
        if not len(pairs.columns["before"]):
            reasons = ", ".join(f"{reason} {count}" for reason, count in pairs.left_out.items())
            raise InputError(
                f"split {split} has no pair that can be used ({reasons or 'nothing left out'}): "
                "expected two dates of at least one sequence"
            )


def checksum(written: Sequence["Written"]) -> str:
    """SHA-256 of the checksums of all shards: of every record in its order."""
    digest = hashlib.sha256()
    for task, report in written:
        digest.update(f"{task.split} {report.records} {report.checksum}\n".encode())
    return digest.hexdigest()


def link(
    builder: "PatchBuilder",
    written: Sequence["Written"],
    problems: Sequence[BadFile],
    folder: Path,
) -> None:
    """Puts the shards into TFDS's unfinished dataset, under the names that it reads.

    They stay in the stage too, so that nothing is lost if the build ends now; empty ones do not go.
    """
    for split in {one.task.split: None for one in written}:
        template = builder._get_filename_template(split_name=split)
        full = [task for task, report in written if task.split == split and report.records]
        for number, task in enumerate(full):
            name = template.sharded_filepath(shard_index=number, num_shards=len(full)).name
            try:
                os.link(task.path, folder / name)
            except OSError:  # a file system without links
                shutil.copyfile(task.path, folder / name)
        ids = index_of(written, split)["id"]
        (folder / ids_file(split)).write_text("".join(f"{name}\n" for name in ids))
    if problems:
        write_table(problems, folder / BAD_FILES)
