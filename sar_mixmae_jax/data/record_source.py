"""Records of built datasets, one at a time or many as rows of arrays.

A stored record is a `tf.train.Example`: a map from names to lists of bytes, floats or integers. In
the layout that builds write, every value is a slice of the record, which `ExampleDecoder` finds
without protocol buffer objects. A record of another layout, or a feature without a fixed size, is
parsed by TFDS.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError

from sar_mixmae_jax.utils.errors import InputError, first_line

Record = dict[str, Any]
"""Fields of a record by name; "id" is bytes, all others are numbers."""
IMAGES = ("backscatter", "noise_free")
"""Fields whose last axis are the bands."""
Columns = dict[str, Any]
"""Fields of several records by name, (records, …) each."""


class Source(Protocol):
    """Random access to records; `read_rows` of a source, if it has one, is faster for many."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


def read_rows(source: Source, rows: np.ndarray) -> Columns:
    """Return the fields of some records, at least one.

    Args:
      source: the records.
      rows: (n,) int, their numbers, which may repeat.
    """
    if hasattr(source, "read_rows"):
        return source.read_rows(rows)
    return _stack([source[row] for row in rows.tolist()])


def replace_records(source: Source, function: Callable[[Source], Source]) -> Source:
    """Return a source with the records that it is made of in another form.

    Args:
      source: records, or a subset or pairs of them.
      function: function of the records.
    """
    if hasattr(source, "replace_records"):
        return source.replace_records(function)
    return function(source)


def _stack(records: Sequence[Record]) -> Columns:
    return {name: np.stack([record[name] for record in records]) for name in records[0]}


BYTES, FLOATS, INTEGERS = 0x0A, 0x12, 0x1A
"""Tags of the lists of a feature."""
ENTRY, KEY, VALUE = 0x0A, 0x0A, 0x12
"""Tags of an entry of the map of features, and of the two parts of an entry."""
MAX_SHIFT = 28
"""Shift of the last byte of a size; TFDS writes no larger records."""


@dataclasses.dataclass(frozen=True)
class Field:
    """Layout of a feature.

    Attributes:
      tag: tag of its list.
      dtype: dtype of its values; None: a text.
      shape: shape of its values.
    """

    tag: int
    dtype: np.dtype | None
    shape: tuple[int, ...] = ()

    @classmethod
    def of(cls, feature: Any) -> Self | None:
        """Return the layout of a TFDS feature; None where its values are no slice of a record."""
        if type(feature) is tfds.features.Text:
            return cls(BYTES, None)
        if type(feature) is not tfds.features.Tensor or None in feature.shape:
            return None
        dtype, encoding = np.dtype(feature.np_dtype), feature._encoding
        if encoding == tfds.features.Encoding.BYTES and dtype.kind in "iuf":
            return cls(BYTES, dtype, feature.shape)
        if encoding == tfds.features.Encoding.NONE and dtype == np.uint8 and feature.shape:
            return cls(INTEGERS, dtype, feature.shape)
        if encoding == tfds.features.Encoding.NONE and dtype == np.float32 and feature.shape:
            return cls(FLOATS, dtype, feature.shape)
        return None

    def read(self, record: bytes, start: int, stop: int) -> Any:
        """Return the value in a slice of a record.

        Raises:
          ValueError: the slice has another size.
        """
        if self.dtype is None:
            return record[start:stop]
        if self.tag == INTEGERS and not record[start:stop].isascii():
            raise ValueError("an integer of several bytes in a feature of uint8")
        count = (stop - start) // self.dtype.itemsize
        return np.frombuffer(record, self.dtype, count, start).reshape(self.shape)


class ExampleDecoder:
    """Decoder of some fields of the records of a dataset."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        """Prepare the decoder.

        Args:
          fields: layouts by name.
        """
        self.fields = dict(fields)
        self._wanted = {name.encode(): field for name, field in fields.items()}

    @classmethod
    def of(cls, features: Mapping[str, Any]) -> Self | None:
        """Return the decoder of TFDS features; None where one of them is no slice of a record."""
        fields = {name: Field.of(feature) for name, feature in features.items()}
        known = {name: field for name, field in fields.items() if field is not None}
        return cls(known) if len(known) == len(fields) else None

    def decode(self, record: bytes) -> dict[str, Any]:
        """Return the fields of a record; arrays are views of it.

        Raises:
          ValueError: the record has another layout.
        """
        at, end = _message(record, 0, ENTRY)
        if end != len(record):
            raise ValueError("trailing bytes after the features")
        values: dict[str, Any] = {}
        while at < end:
            at, stop = _message(record, at, ENTRY)
            start, at = _message(record, at, KEY)
            field = self._wanted.get(record[start:at])
            if field is not None:
                feature, last = _message(record, at, VALUE)
                payload, last_of_list = _message(record, feature, field.tag)
                first, last_value = _message(record, payload, ENTRY)
                if not last == last_of_list == last_value == stop:
                    raise ValueError("a feature has several values")
                values[record[start:at].decode()] = field.read(record, first, stop)
            at = stop
        if len(values) != len(self.fields) or at != end:
            raise ValueError("a feature is missing or truncated")
        return values


def _message(record: bytes, at: int, tag: int) -> tuple[int, int]:
    """Return start and stop of the message that begins with a tag at a place.

    Raises:
      ValueError: another tag is there, or the message is longer than the record.
    """
    if record[at] != tag:
        raise ValueError("it has another layout")
    size, at = record[at + 1], at + 2
    if size >= 128:  # a number of several bytes, seven bits each
        size, shift = size & 127, 7
        while record[at] >= 128 and shift < MAX_SHIFT:
            size |= (record[at] & 127) << shift
            shift, at = shift + 7, at + 1
        size, at = size | record[at] << shift, at + 1
    stop = at + size
    if stop > len(record):
        raise ValueError("it ends early")
    return at, stop


READ_TOGETHER = 256
"""Records of a call of the record reader."""
READ_ERRORS = (RuntimeError, OSError, ValueError, IndexError, KeyError, DecodeError)
"""Types of errors on damaged records."""


class RecordSource:
    """The records of a split with the chosen bands; see `Source`."""

    def __init__(
        self,
        records: Sequence[Any],
        bands: Sequence[int] | None,
        name: str = "records",
        parse: Callable[[Any], Record] = dict,
        decoder: ExampleDecoder | None = None,
        identity: dict[str, Any] | None = None,
    ) -> None:
        """Wrap a TFDS data source.

        Args:
          records: the data source.
          bands: which bands of the records, in which order; None takes them as they are.
          name: name of the dataset, for messages.
          parse: makes the fields of a record.
          decoder: decoder of the same fields, for many serialised records; None: there is none.
          identity: "dataset", its "checksum", "bands" and "fields", as JSON; None: not known.
        """
        self._records, self._bands, self._name, self._parse = records, bands, name, parse
        self._decoder, self.identity = decoder, identity

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        try:
            return self._select_bands(self._parse(self._records[index]))
        except READ_ERRORS as error:
            raise InputError(
                f"{self._name}: record {index} cannot be read ({first_line(error)}): build the "
                "dataset again"
            ) from error

    def read_rows(self, rows: np.ndarray) -> Columns:
        """Return the fields of some records; those of a file are read together."""
        if self._decoder is None:
            return _stack([self[row] for row in rows.tolist()])
        columns: dict[str, Any] = {}
        order = np.argsort(rows, kind="stable")
        for places in np.split(order, range(READ_TOGETHER, len(order), READ_TOGETHER)):
            numbers = rows[places].tolist()
            for place, row, content in zip(
                places.tolist(), numbers, self._read_together(numbers), strict=True
            ):
                try:
                    record = self._select_bands(self._decoder.decode(content))
                except READ_ERRORS:
                    record = self[row]
                for name, value in record.items():
                    if name not in columns:
                        columns[name] = _allocate(value, len(rows))
                    columns[name][place] = value
        return {name: np.asarray(column) for name, column in columns.items()}

    def _read_together(self, rows: list[int]) -> Sequence[bytes]:
        """Return serialised records; b"" for all of them if one cannot be read."""
        try:
            return self._records.__getitems__(rows)  # type: ignore[attr-defined]
        except READ_ERRORS:
            return [b""] * len(rows)

    def _select_bands(self, record: Record) -> Record:
        if self._bands is None:
            return record
        images = {name: record[name][..., self._bands] for name in IMAGES if name in record}
        return {**record, **images}


def _allocate(value: Any, count: int) -> Any:
    """Return a column for values like the given one."""
    return (
        [b""] * count if isinstance(value, bytes) else np.empty((count, *value.shape), value.dtype)
    )


class Subset:
    """Some records of a source; see `Source`."""

    def __init__(self, source: Source, chosen: np.ndarray) -> None:
        """Choose records by their numbers."""
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._chosen[index])]

    def replace_records(self, function: Callable[[Source], Source]) -> "Subset":
        """Return the same subset of another form of the records."""
        return Subset(replace_records(self._source, function), self._chosen)

    def read_rows(self, rows: np.ndarray) -> Columns:
        """Return the fields of some of the chosen records."""
        return read_rows(self._source, self._chosen[rows])
