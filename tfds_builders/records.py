"""What a record holds, whatever the dataset: the one format between builders and training.

A record has `id` and `backscatter` in dB (row, column, band) with NaN = nodata, and what else its
dataset knows: multi-hot `labels`; acquisition `time`, `crs` and `transform`. Bands, unit, nodata
rule, statistics and class names travel in the dataset's metadata, so that training code has no
table of datasets.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.bigearthnet import BandStatistics
from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.errors import look_up
from tfds_builders.geotiff import Georeference

DTYPES = {"float32": np.float32, "float16": np.float16}
"""Of stored backscatter; float16 halves a record, in steps of 1/64 dB from 16 dB, 1/32 from 32."""


def option(default: Any, text: str) -> Any:
    """A field of a config, with the help that its flag shows."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass
class PatchConfig(tfds.core.BuilderConfig):
    """What every dataset can be told; datasets add fields, and each is a flag of the build.

    Attributes:
      dtype: of the stored backscatter, "float32" or "float16".
    """

    dtype: str = option("float32", "of the stored backscatter: float32 or float16")

    def options(self) -> dict[str, Any]:
        """The fields that decide what is built, by name."""
        common = {field.name for field in dataclasses.fields(tfds.core.BuilderConfig)}
        return {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in common
        }


def dataset_info(
    builder: tfds.core.DatasetBuilder,
    *,
    size: int,
    description: str,
    classes: Sequence[str] = (),
    georeferenced: bool = True,
    statistics: BandStatistics | None = None,
    features: Mapping[str, tfds.features.FeatureConnector] | None = None,
    homepage: str = "",
    citation: str = "",
    license: str = "",
    **facts: Any,
) -> tfds.core.DatasetInfo:
    """Describes a dataset of patches.

    Args:
      builder: whose dataset it is; its config says the dtype.
      size: side of a patch in pixels.
      description: one paragraph.
      classes: names of the labels, in order; none: records have no labels.
      georeferenced: whether records say when and where they were acquired.
      statistics: published ones; None: those of the split `train`, computed while building.
      features: further features.
      homepage: of the data.
      citation: BibTeX.
      license: of the data.
      **facts: further facts about the dataset, kept in its metadata.
    """
    options = builder.builder_config.options()
    dtype = look_up(DTYPES, options["dtype"], "dtype")
    labels = {"labels": tfds.features.Tensor(shape=(len(classes),), dtype=np.uint8)}
    place = {
        "time": tfds.features.Text(doc="acquisition, UTC, ISO 8601; empty where unknown"),
        "crs": tfds.features.Text(doc="authority code or WKT; empty where unknown"),
        "transform": tfds.features.Tensor(
            shape=(6,),
            dtype=np.float64,
            encoding=tfds.features.Encoding.BYTES,  # without it, floats are stored with 32 bits
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
                "backscatter": image_feature(size, dtype),
                **(labels if classes else {}),
                **(place if georeferenced else {}),
                **(features or {}),
            }
        ),
        metadata=tfds.core.MetadataDict(
            bands=list(BANDS),
            unit="dB",
            nodata="NaN",
            statistics=statistics._asdict() if statistics else None,
            classes=list(classes),
            options=options,
            **facts,
        ),
    )


def image_feature(size: int, dtype: Any = np.float32) -> tfds.features.Tensor:
    """A (row, column, band) image; raw bytes read and write fastest."""
    return tfds.features.Tensor(
        shape=(size, size, len(BANDS)), dtype=dtype, encoding=tfds.features.Encoding.BYTES
    )


def place(name: str, where: Georeference) -> dict[str, Any]:
    """The features that say when and where, of an image whose product is called `name`."""
    return {
        "time": acquisition_time(name),
        "crs": where.crs,
        "transform": np.array(where.transform),
    }


def acquisition_time(name: str) -> str:
    """When a product was acquired, by its name: "2017-06-13T16:50:43", UTC, or "" if it says not.

    Of a name with several times the first is the start of the acquisition.
    """
    found = re.search(r"(?<!\d)(\d{8})[Tt_](\d{6})(?!\d)", name)
    try:
        return datetime.strptime(found[1] + found[2], "%Y%m%d%H%M%S").isoformat() if found else ""
    except ValueError:  # digits that are no date
        return ""


def multi_hot(names: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """A uint8 vector with a one for every class named."""
    vector = np.zeros(len(classes), np.uint8)
    vector[[classes.index(name) for name in names]] = 1
    return vector
