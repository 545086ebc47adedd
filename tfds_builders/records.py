"""Record format of all datasets: the interface between builders and training.

A record has `id` and `backscatter` in dB (row, column, band) with NaN = nodata, and optionally
multi-hot `labels`, acquisition `time`, `crs` and `transform`, and features of its dataset. Bands,
unit, nodata rule, statistics and class names are metadata of the dataset, so that training code
needs no table of datasets.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.metadata import BANDS, POLARISATIONS, Statistics
from sar_mixmae_jax.utils.errors import look_up
from sar_mixmae_jax.utils.typed_json import to_json
from tfds_builders.geotiff import Georeference

DTYPES = {"float32": np.float32, "float16": np.float16}
"""Types of stored backscatter; float16 halves a record, in steps of 1/64 dB from 16 to 32 dB."""


WATER_CLASSES = ("no water", "water")
"""Classes of masks of water in all datasets, so that a model of one can be evaluated on another."""


def option(default: Any, text: str) -> Any:
    """Return a config field, with the help text of its flag."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass
class PatchConfig(tfds.core.BuilderConfig):
    """Config of a dataset; datasets add fields, and each field is a flag of the build.

    Attributes:
      dtype: type of the stored backscatter, "float32" or "float16".
    """

    dtype: str = option("float32", "of the stored backscatter: float32 or float16")

    def options(self) -> dict[str, Any]:
        """Return the fields that decide the contents of the dataset, by name."""
        common = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in common
        }


def dataset_bands(names: str) -> tuple[str, ...]:
    """Return the polarisations among comma-separated names, in the order of `POLARISATIONS`."""
    given = {name.strip().upper() for name in names.split(",")}
    return tuple(name for name in POLARISATIONS if name in given)


def dataset_info(
    builder: tfds.core.DatasetBuilder,
    *,
    size: int,
    description: str,
    bands: Sequence[str] = BANDS,
    classes: Sequence[str] = (),
    georeferenced: bool = True,
    statistics: Statistics | None = None,
    features: Mapping[str, tfds.features.FeatureConnector] | None = None,
    homepage: str = "",
    citation: str = "",
    license: str = "",
    **metadata: Any,
) -> tfds.core.DatasetInfo:
    """Return the TFDS description of a patch dataset.

    Args:
      builder: builder of the dataset; its config has the dtype.
      size: side of a patch in pixels.
      description: description of one paragraph.
      bands: names of the bands, in the order of the records' last axis.
      classes: names of the labels, in order; empty: records have no labels.
      georeferenced: True if records have `time`, `crs` and `transform`.
      statistics: published statistics; None: computed from the split `train` by the build.
      features: further features of a record.
      homepage: URL of the data.
      citation: BibTeX entry.
      license: license of the data.
      **metadata: further metadata of the dataset.

    Raises:
      InputError: the config has an unknown dtype.
    """
    options = builder.builder_config.options()
    dtype = look_up(DTYPES, options["dtype"], "dtype")
    labels = {"labels": tfds.features.Tensor(shape=(len(classes),), dtype=np.uint8)}
    acquisition = {
        "time": tfds.features.Text(doc="acquisition, UTC, ISO 8601; empty where unknown"),
        "crs": tfds.features.Text(doc="authority code or WKT; empty where unknown"),
        "transform": tfds.features.Tensor(
            shape=(6,),
            dtype=np.float64,
            encoding=tfds.features.Encoding.BYTES,  # by default floats are stored with 32 bits
            doc="x = a·column + b·row + c, y = d·column + e·row + f",
        ),
    }
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        citation=citation,
        license=license,
        features=tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "backscatter": image_feature(size, dtype, len(bands)),
                **(labels if classes else {}),
                **(acquisition if georeferenced else {}),
                **(features or {}),
            }
        ),
        metadata=tfds.core.MetadataDict(
            bands=list(bands),
            unit="dB",
            nodata="NaN",
            statistics=to_json(statistics) if statistics else None,
            classes=list(classes),
            options=options,
            **metadata,
        ),
    )


def image_feature(
    size: int, dtype: Any = np.float32, bands: int = len(BANDS)
) -> tfds.features.Tensor:
    """Return a (row, column, band) feature, stored as raw bytes, which is fastest."""
    return tfds.features.Tensor(
        shape=(size, size, bands), dtype=dtype, encoding=tfds.features.Encoding.BYTES
    )


def map_feature(size: int, doc: str, dtype: Any = np.uint8) -> tfds.features.Tensor:
    """Return the feature of a (row, column) map, stored as raw bytes."""
    return tfds.features.Tensor(
        shape=(size, size), dtype=dtype, encoding=tfds.features.Encoding.BYTES, doc=doc
    )


def acquisition_features(product: str, georeference: Georeference) -> dict[str, Any]:
    """Return `time`, `crs` and `transform` of an image, given the name of its product."""
    return {
        "time": acquisition_time(product),
        "crs": georeference.crs,
        "transform": np.array(georeference.transform),
    }


def acquisition_time(name: str) -> str:
    """Return the first time in a product's name, which is the start of the acquisition.

    Returns:
      UTC time such as "2017-06-13T16:50:43"; "" if the name has none.
    """
    match = re.search(r"(?<!\d)(\d{8})[Tt_](\d{6})(?!\d)", name)
    try:
        return datetime.strptime(match[1] + match[2], "%Y%m%d%H%M%S").isoformat() if match else ""
    except ValueError:  # digits that are not a date
        return ""


def multi_hot(names: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """Return a (classes,) uint8 vector that is 1 for the named classes and 0 for the others."""
    vector = np.zeros(len(classes), np.uint8)
    vector[[classes.index(name) for name in names]] = 1
    return vector
