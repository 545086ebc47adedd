"""The record of a simulated patch."""

import numpy as np

from tfds_builders import records
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1.simulator import CLASSES, labels, simulate


def read_record(size: int, seed: int, number: int) -> Example:
    """Simulates a patch.

    Args:
      size: side in pixels.
      seed: of the dataset.
      number: of the patch.
    """
    patch = simulate(size, (seed, number))
    name = f"synthetic_{seed}_{number:06d}"
    return name, {
        "id": name,
        "backscatter": patch.backscatter,
        "labels": records.multi_hot(labels(patch), tuple(CLASSES)),
        "noise_free": patch.noise_free,
        "land_cover": patch.land_cover,
        "incidence_angle": np.float32(patch.incidence_angle),
    }
