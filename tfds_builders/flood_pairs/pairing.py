"""The pairs of a split, made of what its records say of themselves."""

from datetime import date
from typing import Any

from tfds_builders.plan import Columns, Pairs

INDEX = ("sequence", "date", "flooded", "flooded_fraction", "hard_case")
"""Features of the records that pairs are made of."""

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
"""What is known of every pair."""


def pair(split: str, records: Columns) -> Pairs:
    """Pairs the two dates of every sequence; sequences are independent of each other.

    Args:
      split: name of the split.
      records: `INDEX`, a value for every record.
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
