"""From a built dataset to batches on the host: read, shuffle, batch raw dB, and nothing else."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import grain
import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core.decode import DeserializeMethod

from sar_mixmae_jax.data.date_pairs import load_date_pairs
from sar_mixmae_jax.data.metadata import ids_file, open_builder
from sar_mixmae_jax.data.sampler import Sampler, SequentialSampler
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line, unknown_name

Record = dict[str, Any]
"""The fields of a record by name; "id" is bytes, everything else numbers."""
FIELDS = ("id", "backscatter")
"""What is read of a record unless more is asked for."""
IMAGES = ("backscatter", "noise_free")
"""Fields whose last axis are the bands."""


class Source(Protocol):
    """Random access to records."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Record: ...


class RecordSource:
    """The records of a split with the chosen bands; see `Source`."""

    def __init__(
        self,
        records: Sequence[Any],
        bands: Sequence[int] | None,
        name: str = "records",
        parse: Callable[[Any], Record] = dict,
    ) -> None:
        """Wraps a TFDS data source.

        Args:
          records: the data source.
          bands: which bands of the records, in which order; None takes them as they are.
          name: of the dataset, for messages.
          parse: makes the fields of a record.
        """
        self._records, self._bands, self._name, self._parse = records, bands, name, parse

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Record:
        try:
            record = self._parse(self._records[index])
        except (RuntimeError, OSError, ValueError, IndexError) as error:
            raise InputError(
                f"{self._name}: record {index} cannot be read ({first_line(error)}): build the "
                "dataset again"
            ) from error
        if self._bands is not None:
            images = {name: record[name][..., self._bands] for name in IMAGES if name in record}
            record = {**record, **images}
        return record


@dataclasses.dataclass(frozen=True)
class PatchDataset:
    """A split of a built dataset, as training sees it.

    Attributes:
      source: the records, or pairs of them.
      name: dataset, config, version and split.
      bands: names of the bands, in the order of the records' last axis.
      unit: of the records, "dB".
      mean: of each band in dB.
      std: of each band in dB.
      statistics_of: what mean and std were computed on.
      caveats: what every result on the dataset must say.
      checksum: of all records as the build wrote them, or None where none is stored.
      build: what it was built with: options of its config, seed of the order.
      classes: names of the labels, in order.
      pairs: of the split, by column, see `pairs`; None: the dataset has none.
      size: side of the images in pixels.
      folder: of the dataset.
      fields: what its records hold.
      read: the same records with other fields.
      place_fields: so many of the last "_" fields of an id say where in its acquisition a patch
        is, so that the rest of it names the acquisition; 0: every record is one.
    """

    source: Source
    name: str
    bands: tuple[str, ...]
    unit: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    statistics_of: str
    caveats: tuple[str, ...] = ()
    checksum: str | None = None
    build: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    pairs: dict[str, np.ndarray] | None = None
    size: int = 0
    folder: Path = Path()
    fields: tuple[str, ...] = FIELDS
    read: Callable[[Sequence[str]], Source] | None = None
    place_fields: int = 0

    def describe(self) -> dict[str, Any]:
        """What results on this data must be told with, as JSON has it."""
        return {
            "name": self.name,
            "checksum": self.checksum,
            "build": self.build,
            "records": len(self.source),
            "bands": list(self.bands),
            "unit": self.unit,
            "statistics": {
                "mean": list(self.mean),
                "std": list(self.std),
                "of": self.statistics_of,
            },
            "caveats": list(self.caveats),
        }

    def ids(self) -> list[str]:
        """Of all records, in their order; read from the list that the build wrote, if it did.

        Raises:
          InputError: the list cannot be read.
        """
        splits = self.name.rsplit("/", 1)[-1].split("+")
        files = [self.folder / ids_file(split) for split in splits]
        if all(file.exists() for file in files):
            return [name for file in files for name in _read_lines(file)]
        return [self.source[index]["id"].decode() for index in range(len(self.source))]

    def conventions(self) -> dict[str, Any]:
        """What a model that is trained on these images takes for granted, as JSON has it."""
        described = self.describe()
        return {name: described[name] for name in ("bands", "unit", "statistics")}

    @property
    def statistics(self) -> str:
        """Mean and deviation of every band, and what they were computed on."""
        bands = zip(self.bands, self.mean, self.std, strict=True)
        values = ", ".join(f"{band} {mean:.3f} ± {std:.3f} dB" for band, mean, std in bands)
        return f"{values} ({self.statistics_of})"

    @property
    def title(self) -> str:
        """The name with the caveats, for whatever shows a result."""
        return f"{self.name} ({'; '.join(self.caveats)})" if self.caveats else self.name


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a list of ids ({first_line(error)}): build the dataset "
            "again"
        ) from error


def _read_string_list(metadata: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """A list of texts in the metadata, none where there is none.

    Raises:
      TypeError: it is something else.
    """
    values = metadata.get(name, [])
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"{name} is {str(values)[:50]}, expected a list of texts")
    return tuple(values)


def load_patch_dataset(
    name: str,
    data_dir: str | Path,
    split: str,
    bands: Sequence[str],
    fields: Sequence[str] = FIELDS,
    units: Sequence[str] = ("dB",),
    also: Sequence[str] = (),
) -> PatchDataset:
    """Opens a dataset that `tfds_builders.build` wrote; bands are chosen by name.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built.
      split: of the dataset, or several: "train+validation" reads both without a copy.
      bands: which bands, in which order.
      fields: what to read of every record.
      units: of the backscatter that can be used; its statistics are in dB in any case.
      also: fields that are read where the dataset has them.

    Raises:
      InputError: there is no such dataset, split, band or field, or it does not hold dB.
    """
    builder = open_builder(name, data_dir)
    info = builder.info
    try:
        count = info.splits[split].num_examples  # also "train+validation", "train[:10%]"
    except (KeyError, ValueError) as error:
        raise unknown_name(split, info.splits, f"split of {name}") from error
    whole, name = name, f"{info.full_name}/{split}"
    if count == 0:
        raise InputError(f"{name} holds no patches: choose another --config.split")
    try:
        metadata = dict(info.metadata)
        stored, statistics = _read_string_list(metadata, "bands"), metadata["statistics"]
        means, stds = np.array(statistics["mean"], float), np.array(statistics["std"], float)
        usable = means.shape == stds.shape == (len(stored),)
        if not (usable and np.isfinite(means).all() and (stds > 0).all()):
            raise ValueError(f"mean {means.tolist()} and std {stds.tolist()} of bands {stored}")
        unit, statistics_of = metadata["unit"], statistics["of"]
        caveats, classes = (
            _read_string_list(metadata, "caveats"),
            _read_string_list(metadata, "classes"),
        )
        checksum, place_fields = metadata.get("checksum"), metadata.get("place_fields", 0)
        for field, value in (("unit", unit), ("statistics.of", statistics_of)):
            if not isinstance(value, str):
                raise TypeError(f"{field} is {str(value)[:50]}, expected a text")
        if not (checksum is None or isinstance(checksum, str)):
            raise TypeError(f"checksum is {str(checksum)[:50]}, expected a text")
        if type(place_fields) is not int or place_fields < 0:
            raise TypeError(f"place_fields is {str(place_fields)[:50]}, expected a number of them")
        shape = info.features["backscatter"].shape
        if len(shape) != 3 or shape[-1] != len(stored):
            raise ValueError(f"bands {stored} of records of the shape {shape}")
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{name}: its metadata.json cannot be used ({first_line(error)}): build it again"
        ) from error
    if unit not in units:
        raise InputError(
            f"{name} holds {unit}, expected {' or '.join(units)}: build it again in dB"
        )
    if lacking := [band for band in bands if band not in stored]:
        unknown = unknown_name(lacking[0], stored, f"band of {name}")
        raise InputError(
            f"{unknown}: choose --config.bands among them, or a dataset with those of the encoder"
        )
    for field in fields:
        check_name(info.features, field, f"field of the records of {whole}")
    records = builder.as_data_source(split, deserialize_method=DeserializeMethod.RAW_BYTES)
    order = [stored.index(band) for band in bands]
    as_stored = order == list(range(len(stored)))

    def read(wanted: Sequence[str]) -> RecordSource:
        features = tfds.features.FeaturesDict({key: info.features[key] for key in wanted})
        chosen = None if as_stored else order
        return RecordSource(records, chosen, name, features.deserialize_example_np)

    return PatchDataset(
        source=read((*fields, *(field for field in also if field in info.features))),
        name=name,
        bands=tuple(bands),
        unit=unit,
        mean=tuple(means[order].tolist()),
        std=tuple(stds[order].tolist()),
        statistics_of=statistics_of,
        caveats=caveats,
        checksum=checksum,
        build={name: metadata[name] for name in ("options", "order_seed") if name in metadata},
        classes=classes,
        pairs=load_date_pairs(metadata["pairs"], split, info) if "pairs" in metadata else None,
        size=shape[0],
        folder=Path(info.data_dir),
        fields=tuple(info.features),
        read=read,
        place_fields=place_fields,
    )


class Subset:
    """Some records of a source; see `Source`."""

    def __init__(self, source: Source, chosen: np.ndarray) -> None:
        """Takes the numbers of the chosen records."""
        self._source, self._chosen = source, chosen

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Record:
        return self._source[int(self._chosen[index])]


READ_BATCH_SIZE = 64
"""Records, where all of them are read for one of their fields."""


def read_column(patches: PatchDataset, field: str) -> np.ndarray:
    """(records, …) a field of all records, in their order; nothing else of them is decoded."""
    source = patches.source if patches.read is None else patches.read((field,))
    order = SequentialSampler(len(source), READ_BATCH_SIZE)
    parts = [batch[field] for batch in batches(source, order, 0, order.steps)]
    return np.concatenate(parts)[: len(source)]


MAX_STEPS = 1 << 40
"""A number of steps that no run has."""


def batches(
    source: Source,
    order: Sampler,
    start: int = 0,
    stop: int = MAX_STEPS,
    share: tuple[int, int] = (0, 1),
) -> grain.DatasetIterator:
    """The batches of the steps from `start` to before `stop`, read ahead by two threads.

    Args:
      source: the records.
      order: which of them make a batch.
      start: steps done.
      stop: steps done at the end.
      share: (i, n): only the i-th of n equal parts of every batch, for process i of n.

    Returns:
      An iterator of the fields of records, each (batch, …).
    """

    def read(step: int) -> dict[str, np.ndarray]:
        records = [source[index] for index in order.batch(step, *share)]
        return {key: np.stack([record[key] for record in records]) for key in records[0]}

    dataset = grain.MapDataset.range(start, stop).map(read)
    return iter(dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)))
