"""What a dataset says of itself for a build, and what a user says: plain data."""

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
from tfds_builders.shards import Example, Task

PATCHES_PER_SHARD = 1_000
"""About 100 MB of 120x120x2 float32."""


@dataclasses.dataclass(frozen=True)
class BuildSettings:
    """How a dataset is built, whatever it is.

    Attributes:
      skip_bad: leave out what cannot be read, and count it; else the build stops with a table.
      processes: how many work at once; None: one for every core.
      order_seed: of the order of the records.
      raw: the raw data as the user named them, a folder or a file; None: the folder that TFDS says.
    """

    skip_bad: bool = False
    processes: int | None = None
    order_seed: int = 0
    raw: Path | None = None


Columns = Mapping[str, Sequence[Any]]
"""Values by name, one for every record or pair, as JSON has them."""


class Pairs(NamedTuple):
    """The pairs of a split, each two records of it.

    Attributes:
      columns: "before" and "after", numbers of records in the split; "flooded" (0 or 1, of the
        second date); "sequence" and "group", names: pairs of one group are not independent; and
        what else is known of every pair, such as "onset" or "gap_days".
      left_out: how many pairs there are not, by the reason.
    """

    columns: Columns
    left_out: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a dataset consists of.

    Attributes:
      items: of every split, an array whose rows are items.
      read: makes a record, of `arguments` and an item; a function of a module.
      sources: names the files that `read` reads, of the same; none: there are no raw files.
      arguments: the same for every item, plain data.
      identity: what tells these raw data from others that have the same items.
      run_length: so many neighbouring items stay together, for what is read faster so.
      records_per_shard: number of records per shard; None: `PATCHES_PER_SHARD`. A killed build
        loses at most one shard per core.
      bad_files: what was found to be missing or wrong before any patch was read.
      num_dropped: how many patches are not among the items for that.
      index_features: features that `make_pairs` is given of every record, scalars and texts.
      make_pairs: function of a split's name and its index columns that returns its pairs; None:
        the dataset has no pairs.
      metadata: for the dataset's metadata.
      notes: sentences for whoever builds it, kept in the metadata too.
    """

    items: dict[str, np.ndarray]
    read: Callable[..., Example]
    sources: Callable[..., list[Path]] | None = None
    arguments: tuple[Any, ...] = ()
    identity: Any = ()
    run_length: int = 1
    records_per_shard: int | None = None
    bad_files: Sequence[BadFile] = ()
    num_dropped: int = 0
    index_features: tuple[str, ...] = ()
    make_pairs: "Callable[[str, Columns], Pairs] | None" = None
    metadata: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: Sequence[str] = ()


def tasks(
    plan: Plan, folder: Path, features: tfds.features.FeaturesDict, order_seed: int
) -> list[Task]:
    """The shards of every split: runs of items dealt out at random, in their own order inside one.

    Reading a shard in that order goes once through a folder or a scene.

    Args:
      plan: of the dataset.
      folder: for the shards.
      features: of a record.
      order_seed: of the dealing.
    """
    read = partial(plan.read, *plan.arguments)
    sources = partial(plan.sources, *plan.arguments) if plan.sources else None
    index = tuple(dict.fromkeys(("id", *plan.index_features)))
    found = []
    for split, items in plan.items.items():
        count = -(-len(items) // (plan.records_per_shard or PATCHES_PER_SHARD))
        for number in range(count):
            chosen = deal(len(items), count, plan.run_length, order_seed)[number]
            path = folder / f"{split}-{number:05d}"
            found.append(Task(path, split, features, read, sources, items[chosen], index))
    return found


def deal(length: int, count: int, run: int, seed: int) -> list[np.ndarray]:
    """Deals indices to shards of nearly equal length.

    Args:
      length: number of items.
      count: number of shards.
      run: indices that stay together.
      seed: of the order of the runs.

    Returns:
      The sorted indices of every shard.
    """
    runs = np.arange(length) // run
    order = np.random.default_rng(seed).permutation(-(-length // run))
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    indices = np.argsort(place[runs], kind="stable")
    return [np.sort(part) for part in np.array_split(indices, count)]


def fingerprint(plan: Plan, facts: Mapping[str, Any]) -> str:
    """A SHA-256 of all that decides what is in the shards.

    Args:
      plan: of the dataset.
      facts: what else decides it, of plain values.
    """
    known = {**facts, "arguments": repr(plan.arguments), "identity": repr(plan.identity)}
    known["shards"] = [plan.records_per_shard or PATCHES_PER_SHARD, plan.run_length]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    for name, items in plan.items.items():
        digest.update(f"{name} {items.dtype}".encode() + items.tobytes())
    return digest.hexdigest()
