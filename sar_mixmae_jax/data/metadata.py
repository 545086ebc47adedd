"""Metadata of built datasets, shared by builders and training; free of JAX."""

import dataclasses
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError, first_line
from sar_mixmae_jax.utils.files import is_url
from sar_mixmae_jax.utils.typed_json import from_json, to_json

BANDS = ("VH", "VV")
"""The Sentinel-1 IW dual-polarisation bands, in the order of the published checkpoints."""

POLARISATIONS = ("VH", "VV", "HV", "HH")
"""Bands that a dataset can have, in the order in which its records hold them."""

FLOOR_DB = -35.0
"""Level of pixels whose linear power is 0 or below after noise subtraction: dark, not nodata."""

NOT_LABELLED = -1
"""Per-pixel label of pixels without one: losses, metrics and counts leave them out."""

FEATURES = "features.json"
"""File in the folder of a dataset whose content TFDS turns into imports."""

STORED_LOCATION_FIELDS = "place_fields"
"""Name of `DatasetMetadata.location_fields` in a `metadata.json`."""

CODE_KEYS = ("pythonClassName", "python_class_name", "type")
"""Keys of code that TFDS imports: both spellings of its protocol buffer, and its older JSON."""

MIN_STD_DB, MAX_DB = 1e-6, 1000.0
"""Bounds of statistics: float32 computes with what lies within."""

PART = re.compile(r"\w[\w.+*-]{0,199}")
"""Part of the name of a dataset between slashes and colons."""


class Statistics(msgspec.Struct, frozen=True, rename={"computed_on": "of"}):
    """Statistics with which images are standardised.

    Attributes:
      mean: mean of every band, dB.
      std: standard deviation of every band, dB, above 0.
      computed_on: description of the images; stored as `of`.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    computed_on: str

    def __post_init__(self) -> None:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if not all(math.isfinite(value) for value in values):
                raise ValueError(f"{name} is {str(values)[:50]}, expected finite numbers")
        if len(self.mean) != len(self.std):
            raise ValueError(f"{len(self.mean)} means and {len(self.std)} stds, expected as many")
        if not all(MIN_STD_DB <= value <= MAX_DB for value in self.std):
            raise ValueError(
                f"std is {str(self.std)[:50]}, expected dB from {MIN_STD_DB:g} to {MAX_DB:g}"
            )
        if not all(abs(value) <= MAX_DB for value in self.mean):
            raise ValueError(f"mean is {str(self.mean)[:50]}, expected dB within +-{MAX_DB:g}")

    def check_bands(self, bands: Sequence[str]) -> None:
        """Check that there is one value per band.

        Raises:
          ValueError: there are more or fewer.
        """
        if len(self.mean) != len(bands):
            raise ValueError(
                f"statistics hold {len(self.mean)} values, expected {len(bands)}, one per band"
            )

    def select(self, rows: Sequence[int]) -> "Statistics":
        """Return the statistics of some bands, by their positions."""
        mean, std = (tuple(values[row] for row in rows) for values in (self.mean, self.std))
        return Statistics(mean, std, self.computed_on)


@dataclasses.dataclass(frozen=True)
class DatasetDescription:
    """Facts about a split that are stored with everything made from it.

    Attributes:
      name: dataset, config, version and split.
      checksum: checksum of all records as they were built; None where none is stored.
      records: number of records; None where it is not known.
      caveats: sentences that belong to every result on the data.
      build: options and order seed of the build.
      bands: names of the bands.
      unit: unit of the records.
      statistics: statistics of the bands; None where none are known.
      quantity: "sigma0" or "gamma0"; "" where it is not known.
      pixel_size: square root of the area of a pixel, metres; None where it is unknown or mixed.
      record_size: side of the images, pixels; None where it is not known.
    """

    name: str
    checksum: str | None = None
    records: int | None = None
    caveats: tuple[str, ...] = ()
    build: dict[str, Any] = dataclasses.field(default_factory=dict)
    bands: tuple[str, ...] = ()
    unit: str = ""
    statistics: Statistics | None = None
    quantity: str = ""
    pixel_size: float | None = None
    record_size: int | None = None

    @property
    def title(self) -> str:
        """The name with the caveats, for figures and reports."""
        return add_caveats(self.name, self.caveats)


def add_caveats(title: str, caveats: Sequence[str]) -> str:
    """Return a title with caveats in parentheses."""
    return f"{title} ({'; '.join(caveats)})" if caveats else title


QUANTITIES = ("sigma0", "gamma0")
SPACING_RATIO = 1.1
"""Ratio of the pixel spacings of two images above which their pixels differ."""

Column = list[bool | int | float | str | None]


@dataclasses.dataclass(frozen=True)
class DatasetMetadata:
    """Content of the `metadata.json` of a built dataset.

    Attributes:
      bands: names of the bands, in the order of the records' last axis.
      unit: unit of the records, "dB" or "linear".
      statistics: in dB; None: training needs some.
      nodata: value of pixels without a measurement.
      caveats: sentences that belong to every result on the data.
      classes: names of the labels, in order; empty: records have none.
      notes: sentences for the person who builds the dataset.
      checksum: checksum of all records, in their order; None where none was made.
      location_fields: number of the last "_" fields of an id that say where in its acquisition an
        image lies, so that the others name the acquisition; 0: every record is one.
      options: options of the dataset's config.
      order_seed: random seed of the order of the records.
      pairs: columns of the pairs of every split, see `date_pairs`; None: the dataset has none.
      masks: names of the classes of every per-pixel label, by the name of its feature; a pixel
        holds the number of its class, or -1 where it is not labelled.
      files: SHA-256 of the files of records, by name; empty in datasets of earlier versions.
      facts: further fields, by name.
    """

    bands: tuple[str, ...]
    unit: str
    statistics: Statistics | None = None
    nodata: str | None = None
    caveats: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    checksum: str | None = None
    location_fields: int = 0
    options: dict[str, Any] | None = None
    order_seed: int | None = None
    pairs: dict[str, dict[str, Column]] | None = None
    masks: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    files: dict[str, str] = dataclasses.field(default_factory=dict)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ValueError(f"bands are {str(self.bands)[:50]}, expected different names")
        if self.location_fields < 0:
            raise ValueError(f"location_fields is {self.location_fields}, expected 0 or more")
        if self.statistics is not None:
            self.statistics.check_bands(self.bands)

    @classmethod
    def from_json(cls, content: Any) -> Self:
        """Read the content of a `metadata.json`.

        Raises:
          ValueError: names the field that is missing or cannot be used.
        """
        fields = from_json(dict[str, Any], content)
        if STORED_LOCATION_FIELDS in fields:
            fields["location_fields"] = fields.pop(STORED_LOCATION_FIELDS)
        known = cls.__dataclass_fields__.keys() - {"facts"}
        parts = {name: value for name, value in fields.items() if name in known}
        further = {name: value for name, value in fields.items() if name not in known}
        return from_json(cls, {**parts, "facts": further})

    def to_json(self) -> dict[str, Any]:
        """Return the content of `metadata.json`."""
        content = to_json(self)
        content[STORED_LOCATION_FIELDS] = content.pop("location_fields")
        return content.pop("facts") | content

    @property
    def quantity(self) -> str:
        """Quantity of the backscatter, one of `QUANTITIES`; "" where it is not known."""
        quantity = self.facts.get("quantity")
        return quantity if quantity in QUANTITIES else ""

    @property
    def pixel_size(self) -> float | None:
        """Square root of the area of a pixel, metres; None where it is unknown or mixed."""
        try:
            spacings = from_json(list[tuple[float, float]], self.facts.get("pixel_spacing_m"))
        except ValueError:
            return None
        sides = sorted(math.sqrt(abs(rows * columns)) for rows, columns in spacings)
        if not sides or not 0 < sides[-1] <= SPACING_RATIO * sides[0]:
            return None
        return float(f"{sum(sides) / len(sides):.3g}")

    @property
    def build(self) -> dict[str, Any]:
        """Options and order seed of the build, where they are stored."""
        stored = {"options": self.options, "order_seed": self.order_seed}
        return {name: value for name, value in stored.items() if value is not None}


def check_features(folder: Path) -> None:
    """Security: refuse a dataset that names code outside TFDS, which opening it would import.

    Args:
      folder: folder of the dataset.

    Raises:
      InputError: names the file and the code, or says why the file is no JSON.
    """
    path = folder / FEATURES
    try:
        names = list(_names_of_code(json.loads(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path}: cannot be read as JSON ({first_line(error)}): it is damaged, remove the "
            "folder to build the dataset again"
        ) from error
    for name in names:
        if not name.startswith("tensorflow_datasets.core.features."):
            raise InputError(
                f"{path}: names the code {name[:100]}, expected features of tensorflow_datasets: "
                "do not use this dataset; build it again"
            )


def _names_of_code(content: Any) -> Iterator[str]:
    """Yield the code names anywhere in a content, also in JSON that is a string of the JSON."""
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield from (value[k] for k in CODE_KEYS if isinstance(value.get(k), str))
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
            try:
                waiting.append(json.loads(value))
            except ValueError:  # a text, which TFDS cannot parse either
                continue


def ids_file(split: str) -> str:
    """Return the name of the file that lists the ids of a split, one a line, in their order."""
    return f"ids-{split}.txt"


def check_dataset_name(name: str) -> None:
    """Check the name of a dataset, which must not lead out of the data folder.

    Raises:
      InputError: the name has another form.
    """
    if not all(PART.fullmatch(part) for part in re.split("[/:]", name)):
        raise InputError(
            f"{name[:100]!r} is no name of a dataset: expected one such as bigearthnet_s1 or "
            "bigearthnet_s1/v1:2.0.0, below the data folder"
        )


def open_builder(name: str, data_dir: str | Path) -> tfds.core.DatasetBuilder:
    """Open a built dataset without the code that built it.

    Args:
      name: "dataset", "dataset/config" or "dataset/config:version".
      data_dir: where datasets are built; of one in a bucket, all but the records are fetched.

    Raises:
      InputError: there is no such dataset, or its files cannot be used.
      StorageError: the bucket cannot be used.
    """
    check_dataset_name(name)
    where = data_dir
    if is_url(data_dir):
        from sar_mixmae_jax.utils.dataset_cache import fetch_description

        data_dir = fetch_description(name, str(data_dir))
    try:
        # the folder itself, since names are not folders: TFDS takes BigEarthNet for big_earth_net
        found = tfds.core.read_only_builder._find_builder_dir(name, data_dir=str(data_dir))
        reason = None
    except Exception as error:  # it raises several types for names and folders that do not exist
        found, reason = None, error
    if found is None:
        unfinished = [*Path(data_dir, name.split(":")[0]).rglob("incomplete.resume_*")]
        raise InputError(
            f"found no dataset {name!r} in {where}: "
            + (
                f"{unfinished[0]} is an unfinished build: repeat the build command to continue"
                if unfinished
                else f"check the name, or build it with `sar-mixmae build {name} "
                f"--data_dir={where}` (and --manual_dir=RAW if it is made from files)"
            )
        ) from reason
    check_features(Path(found))
    try:
        builder = tfds.builder_from_directory(found)
    except Exception as error:  # the library raises several types, none of them documented
        raise InputError(
            f"{found}: dataset_info.json or {FEATURES} cannot be used ({first_line(error)}): "
            "remove the folder to build the dataset again"
        ) from error
    try:
        _ = builder.info.metadata
    except (OSError, ValueError, TypeError):
        pass  # reported by read_dataset_metadata
    except RecursionError as error:
        raise InputError(
            f"{found}/metadata.json: cannot be used ({first_line(error)}): remove the folder to "
            "build the dataset again"
        ) from error
    return builder


def read_dataset_metadata(
    info: tfds.core.DatasetInfo, *, needs_statistics: bool = True
) -> DatasetMetadata:
    """Return the metadata of a built dataset, checked against the shape of its records.

    Args:
      info: TFDS's description of the dataset.
      needs_statistics: False: leave out statistics that are missing or cannot be used.

    Raises:
      InputError: names the field that is missing or cannot be used.
    """
    try:
        content = dict(info.metadata)
        if not needs_statistics:
            content["statistics"] = _usable_statistics(content)
        metadata = DatasetMetadata.from_json(content)
        if needs_statistics and metadata.statistics is None:
            raise ValueError("statistics is missing")
        shape = info.features["backscatter"].shape
        if len(shape) != 3 or shape[-1] != len(metadata.bands):
            raise ValueError(
                f"bands are {str(metadata.bands)[:50]}, and records are of the shape {shape}"
            )
        labels = info.features["labels"].shape if "labels" in info.features else (0,)
        if metadata.classes and labels != (len(metadata.classes),):
            raise ValueError(
                f"classes has {len(metadata.classes)} names, and labels are of the shape {labels}"
            )
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise InputError(
            f"{info.full_name}: its metadata.json cannot be used ({first_line(error)}): build it "
            "again"
        ) from error
    return metadata


def fetch_split(info: tfds.core.DatasetInfo, data_dir: str | Path, split: str) -> None:
    """Fetch the records of a split of a dataset in a bucket; nothing happens for a local one.

    Args:
      info: TFDS's description of the dataset.
      data_dir: where datasets are built.
      split: split of the dataset, or several, or a part of one.

    Raises:
      InputError: they are damaged, or do not fit into the cache.
      StorageError: the bucket cannot be used.
    """
    if is_url(data_dir):
        from sar_mixmae_jax.utils.dataset_cache import fetch_records

        names = [Path(part.filename).name for part in info.splits[split].file_instructions]
        checksums = read_dataset_metadata(info, needs_statistics=False).files
        fetch_records(str(data_dir), Path(info.data_dir), dict.fromkeys(names), checksums)


def _usable_statistics(content: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        statistics = from_json(Statistics, content.get("statistics"))
        statistics.check_bands(content["bands"])
    except (ValueError, KeyError, TypeError):
        return None
    return to_json(statistics)
