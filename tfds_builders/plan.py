"""Plan of a dataset build: the items of every split, and the shards that they are written to."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from tfds_builders.bad_files import BadFile
from tfds_builders.shards import Example, ShardTask

PATCHES_PER_SHARD = 1_000
"""Records per shard: about 100 MB of 120x120x2 float32."""


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """Settings of a build that are the same for all datasets.

    Attributes:
      skip_bad: leave out and count files that cannot be used, instead of raising `BadFilesError`.
      processes: number of processes; None: one per core.
      order_seed: seed of the order of the records.
      raw: folder or file of the raw data; None: the manual folder of TFDS.
    """

    skip_bad: bool = False
    processes: int | None = None
    order_seed: int = 0
    raw: Path | None = None


Columns = Mapping[str, Sequence[Any]]
"""Columns of a table by name, one JSON value per record or pair."""


class Pairs(NamedTuple):
    """Pairs of records of a split, of two dates each.

    Attributes:
      columns: "before" and "after", record numbers in the split; "flooded" (0 or 1, of the second
        date); "sequence" and "group", names: pairs of one group are not independent; and further
        columns of a dataset, such as "onset" or "gap_days".
      left_out: number of pairs that are left out, by reason.
    """

    columns: Columns
    left_out: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Contents of a dataset, and how to read them.

    Attributes:
      items: by split, an array with one row per record.
      read: function of `arguments` and an item that returns a record; defined in a module, so
        that it can be pickled.
      source_files: function of the same that returns the raw files of an item; None: the dataset
        has no raw files.
      arguments: arguments of both functions that are the same for all items.
      identity: value that differs between raw data with equal items.
      run_length: number of neighbouring items that stay in one shard, where that is faster to read.
      records_per_shard: number of records per shard; None: `PATCHES_PER_SHARD`. A killed build
        loses at most one shard per core.
      bad_files: raw files that were found missing or unusable before any record was read.
      unused_files: files that are no part of the dataset, and why; not an error.
      num_dropped: number of patches that are not among the items for that reason.
      index_features: names of the scalar and text features that `make_pairs` and `summarise` need.
      make_pairs: function of a split's name and its index columns that returns its pairs; None:
        the dataset has no pairs.
      summarise: function of the index columns by split that returns further metadata and notes;
        None: there are none.
      metadata: further metadata of the dataset.
      notes: sentences for the user, printed and kept in the metadata.
    """

    items: dict[str, np.ndarray]
    read: Callable[..., Example]
    source_files: Callable[..., list[Path]] | None = None
    arguments: tuple[Any, ...] = ()
    identity: Any = ()
    run_length: int = 1
    records_per_shard: int | None = None
    bad_files: Sequence[BadFile] = ()
    unused_files: Sequence[BadFile] = ()
    num_dropped: int = 0
    index_features: tuple[str, ...] = ()
    make_pairs: Callable[[str, Columns], Pairs] | None = None
    summarise: Callable[[Mapping[str, Columns]], tuple[dict[str, Any], list[str]]] | None = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def make_shard_tasks(
    plan: Plan, folder: Path, features: tfds.features.FeaturesDict, order_seed: int
) -> list[ShardTask]:
    """Return the shards of every split: runs of items dealt at random, in plan order inside each.

    Reading a shard in plan order goes through a folder or a scene once.

    Args:
      plan: plan of the dataset.
      folder: folder for the shards.
      features: features of a record.
      order_seed: seed of the deal.
    """
    read = partial(plan.read, *plan.arguments)
    source_files = partial(plan.source_files, *plan.arguments) if plan.source_files else None
    index = tuple(dict.fromkeys(("id", *plan.index_features)))
    tasks = []
    for split, items in plan.items.items():
        count = -(-len(items) // (plan.records_per_shard or PATCHES_PER_SHARD))
        for number in range(count):
            rows = deal_to_shards(len(items), count, plan.run_length, order_seed)[number]
            path = folder / f"{split}-{number:05d}"
            tasks.append(ShardTask(path, split, features, read, source_files, items[rows], index))
    return tasks


def deal_to_shards(num_items: int, num_shards: int, run_length: int, seed: int) -> list[np.ndarray]:
    """Deal item indices to shards of nearly equal length.

    Args:
      num_items: number of items.
      num_shards: number of shards.
      run_length: number of neighbouring items that stay together.
      seed: seed of the order of the runs.

    Returns:
      Sorted item indices of every shard.
    """
    run_of_item = np.arange(num_items) // run_length
    order = np.random.default_rng(seed).permutation(-(-num_items // run_length))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    indices = np.argsort(rank[run_of_item], kind="stable")
    return [np.sort(part) for part in np.array_split(indices, num_shards)]


def plan_fingerprint(plan: Plan, facts: Mapping[str, Any]) -> str:
    """Return a SHA-256 of all that decides the contents of the shards.

    Args:
      plan: plan of the dataset.
      facts: JSON values that decide the contents besides the plan.
    """
    facts = {
        **facts,
        "arguments": repr(plan.arguments),
        "identity": repr(plan.identity),
        "shards": [plan.records_per_shard or PATCHES_PER_SHARD, plan.run_length],
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, items in plan.items.items():
        digest.update(f"{name} {items.dtype}".encode() + items.tobytes())
    return digest.hexdigest()
