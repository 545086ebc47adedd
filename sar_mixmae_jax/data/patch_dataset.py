"""Built datasets and batches of their records on the host, as raw backscatter."""

import dataclasses
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import grain
import numpy as np
import tensorflow_datasets as tfds
from absl import flags
from tensorflow_datasets.core.decode import DeserializeMethod

from sar_mixmae_jax.data.date_pairs import load_date_pairs
from sar_mixmae_jax.data.metadata import (
    DatasetDescription,
    Statistics,
    fetch_split,
    ids_file,
    open_builder,
    read_dataset_metadata,
)
from sar_mixmae_jax.data.record_source import (
    Columns,
    ExampleDecoder,
    RecordSource,
    Source,
    read_rows,
)
from sar_mixmae_jax.data.sampler import Sampler, SequentialSampler
from sar_mixmae_jax.utils.errors import InputError, check_name, first_line, unknown_name

FIELDS = ("id", "backscatter")
"""Fields that are read of a record by default."""


@dataclasses.dataclass(frozen=True)
class PatchDataset:
    """A split of a built dataset with the chosen bands.

    Attributes:
      source: the records, or pairs of them.
      name: dataset, config, version and split.
      bands: names of the bands, in the order of the records' last axis.
      unit: unit of the records, "dB" or "linear".
      statistics: statistics of the bands, with which images are standardised.
      caveats: sentences that belong to every result on the dataset.
      checksum: checksum of all records as the build wrote them, or None where none is stored.
      build: options of the build and seed of its order.
      classes: names of the labels, in order.
      pairs: pairs of the split, by column, see `date_pairs`; None: the dataset has none.
      size: side of the images in pixels.
      folder: folder of the dataset.
      fields: names of the features of its records.
      read: the same records with other fields.
      location_fields: see `DatasetMetadata`.
      masks: see `DatasetMetadata`.
      quantity: see `DatasetDescription`.
      pixel_size: see `DatasetDescription`.
    """

    source: Source
    name: str
    bands: tuple[str, ...]
    unit: str
    statistics: Statistics
    caveats: tuple[str, ...] = ()
    checksum: str | None = None
    build: dict[str, Any] = dataclasses.field(default_factory=dict)
    classes: tuple[str, ...] = ()
    pairs: dict[str, np.ndarray] | None = None
    size: int = 0
    folder: Path = Path()
    fields: tuple[str, ...] = FIELDS
    read: Callable[[Sequence[str]], Source] | None = None
    location_fields: int = 0
    masks: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    quantity: str = ""
    pixel_size: float | None = None

    def describe(self) -> DatasetDescription:
        """Return the facts that are stored with everything made from the split."""
        return DatasetDescription(
            name=self.name,
            checksum=self.checksum,
            records=len(self.source),
            caveats=self.caveats,
            build=self.build,
            bands=self.bands,
            unit=self.unit,
            statistics=self.statistics,
            quantity=self.quantity,
            pixel_size=self.pixel_size,
            record_size=self.size or None,
        )

    def ids(self) -> list[str]:
        """Return the ids of all records, in their order, from the list that the build wrote.

        Raises:
          InputError: the list cannot be read.
        """
        splits = self.name.rsplit("/", 1)[-1].split("+")
        files = [self.folder / ids_file(split) for split in splits]
        if all(file.exists() for file in files):
            return [name for file in files for name in _read_lines(file)]
        return [self.source[index]["id"].decode() for index in range(len(self.source))]

    @property
    def statistics_text(self) -> str:
        """Mean and standard deviation of every band, and what they were computed on."""
        bands = zip(self.bands, self.statistics.mean, self.statistics.std, strict=True)
        values = ", ".join(f"{band} {mean:.3f} ± {std:.3f} dB" for band, mean, std in bands)
        return f"{values} ({self.statistics.computed_on})"

    @property
    def title(self) -> str:
        """The name with the caveats, for figures and reports."""
        return self.describe().title


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a list of ids ({first_line(error)}): build the dataset "
            "again"
        ) from error


def load_patch_dataset(
    name: str,
    data_dir: str | Path,
    split: str,
    bands: Sequence[str],
    fields: Sequence[str] = FIELDS,
    units: Sequence[str] = ("dB",),
    also: Sequence[str] = (),
) -> PatchDataset:
    """Open a split of a dataset that `tfds_builders.build` wrote.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built.
      split: split of the dataset, or several: "train+validation" reads both without a copy.
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
    dataset, name = name, f"{info.full_name}/{split}"
    if count == 0:
        raise InputError(f"{name} holds no patches: choose another split")
    metadata = read_dataset_metadata(info)
    if metadata.unit not in units:
        raise InputError(
            f"{name} holds {metadata.unit}, expected {' or '.join(units)}: build it again in dB"
        )
    assert metadata.statistics is not None
    order = _find_bands(bands, metadata.bands, name)
    for field in fields:
        check_name(info.features, field, f"field of the records of {dataset}")
    fetch_split(info, data_dir, split)
    records = builder.as_data_source(split, deserialize_method=DeserializeMethod.RAW_BYTES)
    columns = None if order == list(range(len(metadata.bands))) else order

    def read(names: Sequence[str]) -> RecordSource:
        features = tfds.features.FeaturesDict({key: info.features[key] for key in names})
        decoder = ExampleDecoder.of(features)
        identity = {
            "dataset": name,
            "checksum": metadata.checksum,
            "bands": list(bands),
            "fields": list(names),
        }
        return RecordSource(
            records,
            columns,
            name,
            features.deserialize_example_np,
            decoder,
            identity if metadata.checksum else None,
        )

    return PatchDataset(
        source=read((*fields, *(field for field in also if field in info.features))),
        name=name,
        bands=tuple(bands),
        unit=metadata.unit,
        statistics=metadata.statistics.select(order),
        caveats=metadata.caveats,
        checksum=metadata.checksum,
        build=metadata.build,
        classes=metadata.classes,
        pairs=None if metadata.pairs is None else load_date_pairs(metadata.pairs, split, info),
        size=info.features["backscatter"].shape[0],
        folder=Path(info.data_dir),
        fields=tuple(info.features),
        read=read,
        location_fields=metadata.location_fields,
        masks=metadata.masks,
        quantity=metadata.quantity,
        pixel_size=metadata.pixel_size,
    )


def _find_bands(bands: Sequence[str], stored: Sequence[str], name: str) -> list[int]:
    """Return the positions of some bands among the stored ones.

    Raises:
      InputError: one is not stored.
    """
    for band in bands:
        if band not in stored:
            unknown = unknown_name(band, stored, f"band of {name}")
            raise InputError(
                f"{unknown}: choose --config.bands among them (for an encoder of other bands with "
                "--config.init_bands=subset or mean), or a dataset with those of the encoder"
            )
    return [stored.index(band) for band in bands]


READ_BATCH_SIZE = 64
"""Records that are read at a time by `read_column`."""


def read_column(patches: PatchDataset, field: str) -> np.ndarray:
    """Return a field of all records, (records, …), in their order; no other field is decoded."""
    source = patches.source if patches.read is None else patches.read((field,))
    order = SequentialSampler(len(source), READ_BATCH_SIZE)
    parts = [batch[field] for batch in batches(source, order, 0, order.steps)]
    return np.concatenate(parts)[: len(source)]


@dataclasses.dataclass(frozen=True)
class ReadOptions:
    """Concurrency of reading; the batches are the same for all values.

    Attributes:
      threads: batches that a process reads at the same time.
      workers: number of reading processes; 0: threads of this process read.
      prefetch: batches that are read ahead.
    """

    threads: int = 4
    workers: int = 0
    prefetch: int = 4


MAX_STEPS = 1 << 40
"""Stop of an iteration without end."""


def batches(
    source: Source,
    order: Sampler,
    start: int = 0,
    stop: int = MAX_STEPS,
    share: tuple[int, int] = (0, 1),
    options: ReadOptions = ReadOptions(),
) -> Generator[Columns]:
    """Yield the batches of the steps from `start` to before `stop`, read ahead.

    Args:
      source: the records.
      order: which of them make a batch.
      start: steps done.
      stop: steps done at the end.
      share: (i, n): only the i-th of n equal parts of every batch, for process i of n.
      options: threads and processes that read.

    Raises:
      InputError: a record cannot be read, or a reading process ended.
    """
    threads = min(options.threads, options.prefetch)
    dataset = (
        grain.MapDataset.range(start, stop)
        .map(partial(_read_batch, source=source, order=order, share=share))
        .to_iter_dataset(grain.ReadOptions(threads, options.prefetch))
    )
    if options.workers:
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()  # Grain reads flags of its own
        ahead = -(-options.prefetch // options.workers)
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(options.workers, ahead))
    with closing(iter(dataset)) as iterator:
        try:
            yield from iterator
        except RuntimeError as error:
            if not options.workers:
                raise
            raise InputError(
                f"a reading process ended ({first_line(error)}): it may lack memory, also shared "
                "memory in /dev/shm: use fewer --config.data.read_workers"
            ) from error


def _read_batch(step: int, source: Source, order: Sampler, share: tuple[int, int]) -> Columns:
    return read_rows(source, order.batch(step, *share))
