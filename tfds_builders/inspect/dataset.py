"""Opens a built dataset to look at it: its facts, and its records in batches, in their order."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.metadata import open_builder
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line

BATCH_BYTES = 2**21
"""Of backscatter read at once: what is computed with it stays near the processor's cache."""

Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset as it was built.

    Attributes:
      name: dataset, config and version.
      folder: where it lies.
      metadata: of the dataset; see `records.dataset_info`.
      records: number of records of every split.
      sizes: bytes of every split.
      builder: that reads it.
    """

    name: str
    folder: Path
    metadata: Mapping[str, Any]
    records: Mapping[str, int]
    sizes: Mapping[str, int]
    builder: tfds.core.DatasetBuilder

    @property
    def bands(self) -> list[str]:
        """Names of the bands, in the order of the records."""
        return self.metadata["bands"]

    @property
    def classes(self) -> list[str]:
        """Names of the classes; none: the records have no labels."""
        return self.metadata.get("classes") or []

    @property
    def statistics(self) -> dict[str, Any]:
        """Mean, std and what they are of, as training uses them; NaN where it could not."""
        try:
            values = self.metadata["statistics"]
            mean, std = (np.array(values[name], float) for name in ("mean", "std"))
            if mean.shape == std.shape == (len(self.bands),):
                return {"mean": mean.tolist(), "std": std.tolist(), "of": str(values["of"])}
        except (KeyError, TypeError, ValueError):  # as it is where there are none
            pass
        absent = [np.nan] * len(self.bands)
        return {"mean": absent, "std": absent, "of": "nothing: training needs statistics"}

    @property
    def caveats(self) -> list[str]:
        """What every result on the dataset must say."""
        return list(self.metadata.get("caveats") or [])

    @property
    def title(self) -> str:
        """The name, and below it the caveats, for pictures."""
        return "\n".join([self.name, *textwrap.wrap("; ".join(self.caveats), 80)])

    @property
    def features(self) -> Mapping[str, Any]:
        """The features of a record by name."""
        return dict(self.builder.info.features)


def open_dataset(name: str, data_dir: str | Path) -> Dataset:
    """Opens a dataset, usable statistics or not.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built.

    Raises:
      InputError: there is none, or it does not say what its numbers are.
    """
    builder = open_builder(name, data_dir)
    info = builder.info
    try:
        metadata = {**info.metadata}
        bands, unit = metadata["bands"], metadata["unit"]
        stored = info.features["backscatter"].shape[-1]
        if unit != "dB" or len(bands) != stored:
            raise ValueError(f"unit {unit}, bands {bands} of records with {stored}")
        for key in ("bands", "classes", "caveats", "notes"):
            values = metadata.get(key) or []
            if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
                raise TypeError(f"{key} is {values!r}, expected a list of texts")
        if not info.splits or not all(split.num_examples for split in info.splits.values()):
            raise ValueError(f"empty splits among {list(info.splits)}")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{info.full_name}: its metadata.json cannot be used ({first_line(error)}): build it "
            "again"
        ) from error
    return Dataset(
        info.full_name,
        Path(builder.data_path),
        metadata,
        {split.name: split.num_examples for split in info.splits.values()},
        {split.name: split.num_bytes for split in info.splits.values()},
        builder,
    )


def check_splits(dataset: Dataset, names: Sequence[str]) -> list[str]:
    """The splits that were named, or all.

    Raises:
      InputError: one is not there.
    """
    for name in names:
        check_name(dataset.records, name, f"split of {dataset.name}")
    return list(dict.fromkeys(names)) or list(dataset.records)


def spread(records: int, count: int | None) -> np.ndarray:
    """Indices of `count` records spread evenly over a split; all where there are no more."""
    if count is None or count >= records:
        return np.arange(records)
    return (np.arange(count) * records) // count


def read(
    dataset: Dataset, split: str, indices: np.ndarray, features: Sequence[str]
) -> Iterator[list[Record]]:
    """Reads records a batch at a time.

    Args:
      dataset: of which.
      split: of the dataset.
      indices: of the records, in the order in which they are read.
      features: that are wanted; those that the dataset lacks are not in the records.

    Raises:
      InputError: a record cannot be read.
    """
    wanted = {name: dataset.features[name] for name in features if name in dataset.features}
    parse = tfds.features.FeaturesDict(wanted).deserialize_example_np
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
        except Exception:  # whichever it was, it is read again by itself
            return [_read_one(dataset, split, source, parse, index) for index in batch]

    with ThreadPoolExecutor(1) as reader:  # reads the next batch while this one is looked at
        ahead = reader.submit(fetch, 0)
        for start in range(step, len(indices) + step, step):
            records = ahead.result()
            if start < len(indices):
                ahead = reader.submit(fetch, start)
            yield records


def _read_one(dataset: Dataset, split: str, source: Any, parse: Any, index: int) -> Record:
    try:
        return parse(source[index])
    except Exception as error:  # of the record reader or the parser, of several types
        raise InputError(
            f"{dataset.name}/{split}: record {index} cannot be read ({first_line(error)}): build "
            "the dataset again"
        ) from error
