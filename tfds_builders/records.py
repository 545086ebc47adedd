"""What a record holds, whatever the dataset: the one format between builders and training.

A record has `id`, `backscatter` in dB as float32 (row, column, band) with NaN = nodata, multi-hot
`labels`, and what else its dataset knows. Bands, unit, nodata rule, statistics and class names
travel in the dataset's metadata, so that training code has no table of datasets.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.radiometry import BANDS

PATCHES_PER_SHARD = 1_000
"""About 100 MB of 120x120x2 float32: a shard fits in memory while it is written."""

Example = tuple[str, dict[str, Any]]


def dataset_info(
    builder: tfds.core.DatasetBuilder,
    *,
    size: int,
    classes: Sequence[str],
    mean: Sequence[float],
    std: Sequence[float],
    statistics_of: str,
    description: str,
    homepage: str = "",
    citation: str = "",
    features: Mapping[str, tfds.features.FeatureConnector] | None = None,
    **metadata: str,
) -> tfds.core.DatasetInfo:
    """Describes a dataset of patches.

    Args:
      builder: whose dataset it is.
      size: side of a patch in pixels.
      classes: names of the labels, in order.
      mean: of each band of `BANDS`, in dB.
      std: of each band, in dB.
      statistics_of: what mean and std were computed on, and how.
      description: one paragraph.
      homepage: of the data.
      citation: BibTeX.
      features: further features.
      **metadata: further facts about the dataset.
    """
    return tfds.core.DatasetInfo(
        builder=builder,
        description=description,
        homepage=homepage,
        citation=citation,
        features=tfds.features.FeaturesDict(
            {
                "id": tfds.features.Text(),
                "backscatter": image(size),
                "labels": tfds.features.Tensor(shape=(len(classes),), dtype=np.uint8),
                **(features or {}),
            }
        ),
        metadata=tfds.core.MetadataDict(
            bands=list(BANDS),
            unit="dB",
            nodata="NaN",
            statistics={"mean": list(mean), "std": list(std), "of": statistics_of},
            classes=list(classes),
            **metadata,
        ),
    )


def image(size: int) -> tfds.features.Tensor:
    """A float32 (row, column, band) image; raw bytes read and write fastest."""
    return tfds.features.Tensor(
        shape=(size, size, len(BANDS)), dtype=np.float32, encoding=tfds.features.Encoding.BYTES
    )


def multi_hot(names: Iterable[str], classes: Sequence[str]) -> np.ndarray:
    """A uint8 vector with a one for every class named."""
    vector = np.zeros(len(classes), np.uint8)
    vector[[classes.index(name) for name in names]] = 1
    return vector


def shards(
    items: Sequence[Any], read: Callable[[Any], Example], *, seed: int = 0
) -> list[Callable[[], Iterator[Example]]]:
    """Generators of about `PATCHES_PER_SHARD` examples each, from items shuffled once by a seed."""
    items = list(items)
    random.Random(seed).shuffle(items)
    count = -(-len(items) // PATCHES_PER_SHARD)
    return [partial(map, read, items[i::count]) for i in range(count)]
