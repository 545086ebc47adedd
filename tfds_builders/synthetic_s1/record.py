"""The record of a simulated patch."""

import numpy as np

from tfds_builders import records
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1.simulator import CLASSES, labels, simulate

SPLITS = ("train", "validation", "test")
ITEM = np.dtype([("split", np.int8), ("number", np.int32)])


def read_record(size: int, seed: int, item: tuple[int, int]) -> Example:
    """Simulates a patch.

    Args:
      size: side in pixels.
      seed: of the dataset.
      item: number of the split, and of the patch in it.
    """
    split, number = item
    patch = simulate(size, (seed, split, number))
    name = f"synthetic_{seed}_{SPLITS[split]}_{number:06d}"
    return {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": records.multi_hot(labels(patch), tuple(CLASSES)),
        "noise_free": patch.noise_free,
        "land_cover": patch.land_cover,
        "incidence_angle": np.float32(patch.incidence_angle),
    }
