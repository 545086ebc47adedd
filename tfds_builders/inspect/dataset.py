"""A built dataset: its metadata, its records in batches, and rewriting its statistics."""

import dataclasses
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.metadata import (
    DatasetMetadata,
    fetch_split,
    open_builder,
    read_dataset_metadata,
)
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line
from sar_mixmae_jax.utils.files import atomic_write, read_json
from sar_mixmae_jax.utils.typed_json import to_json

BATCH_BYTES = 2**21
"""Bytes of backscatter per batch, so that it stays in the processor cache."""

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A built dataset.

    Attributes:
      name: dataset, config and version.
      folder: path of its files.
      metadata: see `DatasetMetadata`; without statistics where they cannot be used.
      records: number of records by split.
      sizes: bytes by split.
      builder: TFDS builder that reads it.
    """

    name: str
    folder: Path
    metadata: DatasetMetadata
    records: Mapping[str, int]
    sizes: Mapping[str, int]
    builder: tfds.core.DatasetBuilder

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands, in the order of the records."""
        return self.metadata.bands

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if the records have no labels."""
        return self.metadata.classes

    @property
    def statistics(self) -> dict[str, Any]:
        """Entries mean, std and of, as training uses them; NaN where they cannot be used."""
        if self.metadata.statistics is not None:
            return to_json(self.metadata.statistics)
        absent = [np.nan] * len(self.bands)
        return {"mean": absent, "std": absent, "of": "nothing: training needs statistics"}

    @property
    def caveats(self) -> tuple[str, ...]:
        """Sentences that belong to every result on the dataset."""
        return self.metadata.caveats

    @property
    def title(self) -> str:
        """Name and caveats, for figures."""
        return "\n".join([self.name, *textwrap.wrap("; ".join(self.caveats), 80)])

    @property
    def features(self) -> Mapping[str, Any]:
        """Features of a record by name."""
        return dict(self.builder.info.features)


def open_dataset(name: str, data_dir: str | Path) -> Dataset:
    """Open a dataset, with or without usable statistics.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: folder of built datasets.

    Raises:
      InputError: there is none, or its metadata cannot be used.
    """
    builder = open_builder(name, data_dir)
    info = builder.info
    metadata = read_dataset_metadata(info, needs_statistics=False)
    if metadata.unit != "dB":
        raise InputError(f"{info.full_name} holds {metadata.unit}, expected dB: build it again")
    if not info.splits or not all(split.num_examples for split in info.splits.values()):
        raise InputError(
            f"{info.full_name}: found empty splits among {', '.join(info.splits)}: build it again"
        )
    fetch_split(info, data_dir, "all")
    return Dataset(
        info.full_name,
        Path(builder.data_path),
        metadata,
        {split.name: split.num_examples for split in info.splits.values()},
        {split.name: split.num_bytes for split in info.splits.values()},
        builder,
    )


def check_splits(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """Return the named splits, or all if none is named.

    Raises:
      InputError: the dataset has no such split.
    """
    for name in names:
        check_name(dataset.records, name, f"split of {dataset.name}")
    return list(dict.fromkeys(names)) or list(dataset.records)


def stratified_rows(records: int, count: int | None) -> np.ndarray:
    """Return `count` row numbers, one drawn at random from each of as many equal blocks.

    All rows if `count` is None or not smaller than `records`. The seed is fixed. The draw is random
    so that periodic orders, such as the two dates of pairs, are not aliased.
    """
    if count is None or count >= records:
        return np.arange(records)
    borders = (np.arange(count + 1) * records) // count
    return np.random.default_rng(0).integers(borders[:-1], borders[1:])


def read(
    dataset: Dataset, split: str, indices: np.ndarray, features: Sequence[str]
) -> Iterator[list[Record]]:
    """Read records in batches.

    Args:
      dataset: the dataset.
      split: name of the split.
      indices: indices of the records, in the order of reading.
      features: names of the features; those that the dataset lacks are not in the records.

    Raises:
      InputError: a record cannot be read.
    """
    selected = {name: dataset.features[name] for name in features if name in dataset.features}
    parse = tfds.features.FeaturesDict(selected).deserialize_example_np
    backscatter = dataset.features["backscatter"]
    size = int(np.prod(backscatter.shape)) * np.dtype(backscatter.np_dtype).itemsize
    step = max(1, BATCH_BYTES // size)
    source = dataset.builder.as_data_source(
        split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def fetch(start: int) -> list[Record]:
        batch = indices[start : start + step].tolist()
        try:
            return [parse(record) for record in source.__getitems__(batch)]
        except Exception:  # read singly, to find which one
            return [_read_one(dataset, split, source, parse, index) for index in batch]

    with ThreadPoolExecutor(1) as reader:  # reads ahead while a batch is in use
        ahead = reader.submit(fetch, 0)
        for start in range(step, len(indices) + step, step):
            records = ahead.result()
            if start < len(indices):
                ahead = reader.submit(fetch, start)
            yield records


def _read_one(dataset: Dataset, split: str, source: Any, parse: Any, index: int) -> Record:
    try:
        return parse(source[index])
    except Exception as error:  # type depends on record reader and parser
        raise InputError(
            f"{dataset.name}/{split}: record {index} cannot be read ({first_line(error)}): build "
            "the dataset again"
        ) from error


def write_statistics(folder: Path, statistics: Mapping[str, Any]) -> None:
    """Replace the statistics in `metadata.json` of a dataset.

    The former ones go to `statistics_before`, and those of earlier replacements to its `before`.

    Args:
      folder: folder of the dataset.
      statistics: "mean" and "std" in dB, and "of", a description of the pixels they are from.

    Raises:
      InputError: the file cannot be read or written.
    """
    path = folder / "metadata.json"
    try:
        metadata = read_json(path)
        former = metadata["statistics"]
        if former != statistics:
            history = dict(former or {})
            if metadata.get("statistics_before"):
                history["before"] = metadata["statistics_before"]
            metadata["statistics_before"] = history or None
            metadata["statistics"] = dict(statistics)
            atomic_write(path, json.dumps(metadata).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} cannot be rewritten ({first_line(error)}): the statistics are unchanged"
        ) from error
