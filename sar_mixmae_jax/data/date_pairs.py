"""Pairs of two dates: which records of a split belong together, and reading them as one.

A dataset of pairs stores every image once; its metadata says which records make a pair, and what is
known of it. So an image that is in ten pairs is on the disk once.
"""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from sar_mixmae_jax.utils.errors import InputError, first_line

REQUIRED = ("before", "after", "flooded", "sequence", "group")
"""Columns that pairs always have: two numbers of records, the label, what is not independent."""


NUMBERS, TEXTS = "biuf", "U"
"""Kinds of NumPy types that a column can have; `TEXTS` is that of the last two required ones."""


class Records(Protocol):
    """Random access to records."""

    def __getitem__(self, index: int) -> dict[str, Any]: ...


class Split(Protocol):
    """A split, as TFDS describes it."""

    @property
    def num_examples(self) -> int:
        """How many records it has."""


class Info(Protocol):
    """A dataset, as TFDS describes it."""

    @property
    def full_name(self) -> str:
        """Dataset, config and version."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """By name."""


class PairSource:
    """Pairs as records: "id", "before" and "after" (row, column, band) dB, "labels" (0 or 1)."""

    def __init__(self, source: Records, pairs: Mapping[str, np.ndarray]) -> None:
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


def load_date_pairs(stored: Any, split: str, info: Info) -> dict[str, np.ndarray]:
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
        if not isinstance(stored, dict):
            raise _invalid_pairs(info, split, f"found {str(stored)[:50]}, expected splits")
        if part not in stored:
            raise InputError(
                f"split {part!r} of {info.full_name} has no pairs: expected whole splits, "
                f"{', '.join(stored)}, or several joined by +"
            )
        records = info.splits[part].num_examples
        try:
            table = _columns(stored[part])
            _check(table, records)
        except (TypeError, ValueError, OverflowError) as error:
            raise _invalid_pairs(info, part, first_line(error)) from error
        table["before"], table["after"] = table["before"] + first, table["after"] + first
        tables.append(table)
        first += records
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: np.concatenate([table[name] for table in tables]) for name in names}


def _invalid_pairs(info: Info, part: str, why: str) -> InputError:
    return InputError(
        f"{info.full_name}: the pairs of {part} in its metadata.json cannot be used ({why}): "
        "build it again"
    )


def _check(table: Mapping[str, np.ndarray], records: int) -> None:
    """Raises a ValueError where columns are no pairs of so many records."""
    if missing := [name for name in REQUIRED if name not in table]:
        raise ValueError(f"no {', '.join(missing)}")
    if len({len(column) for column in table.values()}) != 1:
        raise ValueError("its columns differ in length")
    for name, limit in (("before", records), ("after", records), ("flooded", 2)):
        column = table[name]
        whole = np.issubdtype(column.dtype, np.integer)
        if not (whole and ((column >= 0) & (column < limit)).all()):
            raise ValueError(f"{name} is not whole numbers from 0 to {limit - 1}")
    for name in REQUIRED[3:]:
        if table[name].dtype.kind not in TEXTS:
            raise ValueError(f"{name} is not texts")


def _columns(table: Any) -> dict[str, np.ndarray]:
    """Columns as arrays; what is null in JSON is NaN in numbers.

    Raises:
      TypeError: a column is not a list of numbers, or of texts.
    """
    if not isinstance(table, dict):
        raise TypeError(f"found {str(table)[:50]}, expected columns")
    return {name: _column(name, values) for name, values in table.items()}


def _column(name: str, values: Any) -> np.ndarray:
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return np.array(values, str)
    numbers = isinstance(values, list) and all(
        value is None or isinstance(value, int | float) for value in values
    )
    column = np.array([np.nan if v is None else v for v in values]) if numbers else np.array(None)
    if column.dtype.kind not in NUMBERS:
        raise TypeError(f"{name} is neither a list of numbers nor one of texts")
    return column
