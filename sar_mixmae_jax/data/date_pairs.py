"""Pairs of two dates as records.

A dataset of pairs stores every image once, even if it is in ten pairs; its metadata lists the
records of each pair with the facts about it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import AnyStr, Protocol

import numpy as np

from sar_mixmae_jax.data.metadata import Column
from sar_mixmae_jax.data.record_source import Columns, Record, Source, read_rows, replace_records
from sar_mixmae_jax.utils.errors import InputError, first_line

REQUIRED = ("before", "after", "flooded", "sequence", "group")
"""Columns that pairs always have: two numbers of records, the label (0 or 1), and two strings that
name what is not independent."""


class Split(Protocol):
    """A split, as TFDS describes it."""

    @property
    def num_examples(self) -> int:
        """Number of its records."""


class Info(Protocol):
    """A dataset, as TFDS describes it."""

    @property
    def full_name(self) -> str:
        """Dataset, config and version."""

    @property
    def splits(self) -> Mapping[str, Split]:
        """Splits by name."""


class PairSource:
    """Pairs as records.

    A record holds "id", "before" and "after", (row, column, band) backscatter each, and "labels":
    0 or 1, or the mask of the second date.
    """

    def __init__(
        self, source: Source, pairs: Mapping[str, np.ndarray], mask: str | None = None
    ) -> None:
        """Combine records by pairs.

        Args:
          source: the records of a split.
          pairs: columns, see `load_date_pairs`.
          mask: field of the records that labels the second date; None: the label of the pair.
        """
        self._source, self._pairs, self._mask = source, pairs, mask

    def __len__(self) -> int:
        return len(self._pairs["before"])

    def __getitem__(self, index: int) -> Record:
        before, after = (self._source[int(self._pairs[name][index])] for name in REQUIRED[:2])
        return {
            "id": pair_ids([before["id"]], [after["id"]])[0],
            "before": before["backscatter"],
            "after": after["backscatter"],
            "labels": (
                after[self._mask] if self._mask else np.int32(self._pairs["flooded"][index])
            ),
        }

    def replace_records(self, function: Callable[[Source], Source]) -> "PairSource":
        """Return the same pairs of another form of the records."""
        return PairSource(replace_records(self._source, function), self._pairs, self._mask)

    def read_rows(self, rows: np.ndarray) -> Columns:
        """Return the fields of some pairs."""
        before, after = (read_rows(self._source, self._pairs[name][rows]) for name in REQUIRED[:2])
        return {
            "id": np.array(pair_ids(before["id"].tolist(), after["id"].tolist())),
            "before": before["backscatter"],
            "after": after["backscatter"],
            "labels": (
                after[self._mask] if self._mask else self._pairs["flooded"][rows].astype(np.int32)
            ),
        }


def pair_ids(before: Iterable[AnyStr], after: Iterable[AnyStr]) -> list[AnyStr]:
    """Return the id of each pair, "before > after", from those of its dates."""
    return [
        first + (b" > " if isinstance(first, bytes) else " > ") + second
        for first, second in zip(before, after, strict=True)
    ]


def load_date_pairs(
    stored: Mapping[str, Mapping[str, Column]], split: str, info: Info
) -> dict[str, np.ndarray]:
    """Return the pairs of one split or of several, as columns.

    Args:
      stored: columns of every split, see `DatasetMetadata.pairs`.
      split: "train", or several: "train+validation".
      info: TFDS's description of the dataset.

    Returns:
      (pairs,) arrays by column; numbers of records count through all the splits.

    Raises:
      InputError: `split` is a part of one, or the columns do not fit the records.
    """
    tables, first = [], 0
    for part in split.split("+"):
        if part not in stored:
            raise InputError(
                f"split {part!r} of {info.full_name} has no pairs: expected whole splits, "
                f"{', '.join(stored)}, or several joined by +"
            )
        records = info.splits[part].num_examples
        try:
            table = {name: _column(name, values) for name, values in stored[part].items()}
            _check_pairs(table, records)
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(
                f"{info.full_name}: the pairs of {part} in its metadata.json cannot be used "
                f"({first_line(error)}): build it again"
            ) from error
        table["before"], table["after"] = table["before"] + first, table["after"] + first
        tables.append(table)
        first += records
    names = [name for name in tables[0] if all(name in table for table in tables)]
    return {name: np.concatenate([table[name] for table in tables]) for name in names}


def _check_pairs(table: Mapping[str, np.ndarray], records: int) -> None:
    """Check that columns are pairs of a number of records.

    Raises:
      ValueError: names the column.
    """
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
        if table[name].dtype.kind != "U":
            raise ValueError(f"{name} is not strings")


def _column(name: str, values: Column) -> np.ndarray:
    """Return a column as an array; null becomes NaN in a column of numbers.

    Raises:
      TypeError: numbers and strings are mixed, or a number is too large.
    """
    if all(isinstance(value, str) for value in values):
        return np.array(values, str)
    if any(isinstance(value, str) for value in values):
        raise TypeError(f"{name} holds numbers and strings")
    column = np.array([np.nan if value is None else value for value in values])
    if column.dtype.kind not in "biuf":
        raise TypeError(f"{name} holds integers beyond 64 bits")
    return column
