"""Pairs of two dates: which records of a split belong together, and reading them as one.

A dataset of pairs stores every image once; its metadata says which records make a pair, and what is
known of it. So an image that is in ten pairs is on the disk once.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sar_mixmae_jax.errors import InputError

REQUIRED = ("before", "after", "flooded", "sequence", "group")
"""Columns that pairs always have: two numbers of records, the label, what is not independent."""


class PairSource:
    """Pairs as records: "id", "before" and "after" (row, column, band) dB, "labels" (0 or 1)."""

    def __init__(self, source: Any, pairs: Mapping[str, np.ndarray]) -> None:
        """Takes the records of a split, see `data.Source`, and its pairs."""
        self._source, self._pairs = source, pairs

    def __len__(self) -> int:
        return len(self._pairs["before"])

    def __getitem__(self, index: int) -> dict[str, Any]:
        before, after = (self._source[int(self._pairs[name][index])] for name in REQUIRED[:2])
        return {
            "id": before["id"] + b" > " + after["id"],
            "before": before["backscatter"],
            "after": after["backscatter"],
            "labels": np.int32(self._pairs["flooded"][index]),
        }


def pairs_of_split(stored: Mapping[str, Any], split: str, info: Any) -> dict[str, np.ndarray]:
    """The pairs of one split or of several, as columns.

    Args:
      stored: of every split its columns, as the metadata has them.
      split: "train", or several: "train+validation".
      info: TFDS's description of the dataset.

    Raises:
      InputError: the split is a part of one, or the columns do not fit the records.
    """
    tables, first = [], 0
    for part in split.split("+"):
        if part not in stored:
            raise InputError(
                f"split {part!r} of {info.full_name} has no pairs: expected whole splits, "
                f"{', '.join(stored)}, or several joined by +"
            )
        table, records = _columns(stored[part]), info.splits[part].num_examples
        lengths = {len(column) for column in table.values()}
        missing = [name for name in REQUIRED if name not in table]
        fits = not missing and all(
            np.issubdtype(table[name].dtype, np.integer)
            and ((table[name] >= 0) & (table[name] < limit)).all()
            for name, limit in (("before", records), ("after", records), ("flooded", 2))
        )
        if missing or len(lengths) != 1 or not fits:
            raise InputError(
                f"{info.full_name}: the pairs of {part} in its metadata.json cannot be used"
                f"{' (no ' + ', '.join(missing) + ')' if missing else ''}: build it again"
            )
        table["before"], table["after"] = table["before"] + first, table["after"] + first
        tables.append(table)
        first += records
    return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}


def _columns(table: Mapping[str, list[Any]]) -> dict[str, np.ndarray]:
    """Columns as arrays; what is null in JSON is NaN in numbers."""
    return {
        name: np.array([np.nan if value is None else value for value in values])
        for name, values in table.items()
    }
