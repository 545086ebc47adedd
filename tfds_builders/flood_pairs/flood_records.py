"""Records of the simulated dates, and the pairs of a split."""

from datetime import date
from typing import Any

import numpy as np

from tfds_builders import records
from tfds_builders.flood_pairs.cases import case_of
from tfds_builders.flood_pairs.flood_simulator import DATES, simulate_date
from tfds_builders.plan import Columns, Pairs
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1.land_cover import CLASSES
from tfds_builders.synthetic_s1.simulator import SPLITS, labels

INDEX = ("sequence", "date", "flooded", "flooded_fraction", "hard_case")
"""Features of the records that `pair_dates` reads."""

COLUMNS = (
    "before",
    "after",
    "flooded",
    "sequence",
    "group",
    "onset",
    "gap_days",
    "flooded_fraction",
    "hard_case",
)
"""Columns of the pairs in the metadata."""


def pair_dates(split: str, records: Columns) -> Pairs:
    """Pair the two dates of every sequence; sequences are independent of each other.

    Args:
      split: name of the split, unused.
      records: columns `INDEX` of the records.
    """
    del split
    dates: dict[str, list[tuple[str, int]]] = {}
    for number, (sequence, day) in enumerate(
        zip(records["sequence"], records["date"], strict=True)
    ):
        dates.setdefault(sequence, []).append((day, number))
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for sequence, images in dates.items():
        (first, before), (second, after) = sorted(images)
        flooded = records["flooded"][after]
        gap = date.fromisoformat(second) - date.fromisoformat(first)
        row = (before, after, flooded, sequence, sequence, bool(flooded), gap.days)
        truth = (records["flooded_fraction"][after], records["hard_case"][after])
        for name, value in zip(COLUMNS, row + truth, strict=True):
            columns[name].append(value)
    return Pairs(columns, {})


ITEM = np.dtype([("split", np.int8), ("number", np.int32), ("date", np.int8)])


def read_record(size: int, seed: int, item: tuple[int, int, int]) -> Example:
    """Simulate a record: one date of a pair.

    Args:
      size: side in pixels.
      seed: of the dataset.
      item: numbers of the split, of the pair in it, and of the date: 0 or 1.
    """
    split, number, date = item
    case = case_of(number)
    image = simulate_date(size, (seed, split, number), case, DATES[date])
    sequence = f"flood_{seed}_{SPLITS[split]}_{number:06d}"
    return {
        "id": f"{sequence}_{DATES[date]}",
        "backscatter": image.patch.backscatter,
        "labels": records.multi_hot(labels(image.patch), tuple(CLASSES)),
        "noise_free": image.patch.noise_free.astype(np.float16),
        "land_cover": image.patch.land_cover,
        "incidence_angle": np.float32(image.patch.incidence_angle),
        "water": image.water.astype(np.uint8),
        "flooded": np.uint8(case.flooded and date),
        "flooded_fraction": np.float32(image.flooded_fraction),
        "hard_case": case.hard_case,
        "sequence": sequence,
        "date": image.day.isoformat(),
    }
