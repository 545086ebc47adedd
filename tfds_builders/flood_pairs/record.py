"""The record of one date of a pair."""

import numpy as np

from tfds_builders import records
from tfds_builders.flood_pairs.cases import case_of
from tfds_builders.flood_pairs.simulator import DATES, simulate
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1.record import SPLITS
from tfds_builders.synthetic_s1.simulator import CLASSES, labels

ITEM = np.dtype([("split", np.int8), ("number", np.int32), ("date", np.int8)])


def read_record(size: int, seed: int, item: tuple[int, int, int]) -> Example:
    """Simulates one date of a pair.

    Args:
      size: side in pixels.
      seed: of the dataset.
      item: number of the split, of the pair in it, and of the date: 0 or 1.
    """
    split, number, date = item
    case = case_of(number)
    image = simulate(size, (seed, split, number), case, DATES[date])
    sequence = f"flood_{seed}_{SPLITS[split]}_{number:06d}"
    return {
        "id": f"{sequence}_{DATES[date]}",
        "backscatter": image.patch.backscatter,
        "labels": records.multi_hot(labels(image.patch), tuple(CLASSES)),
        "noise_free": image.patch.noise_free.astype(np.float16),
        "land_cover": image.patch.land_cover,
        "incidence_angle": np.float32(image.patch.incidence_angle),
        "water": image.water.astype(np.uint8),
        "flooded": np.uint8(case.flooded and date),
        "flooded_fraction": np.float32(image.flooded_fraction),
        "hard_case": case.hard_case,
        "sequence": sequence,
        "date": image.day.isoformat(),
    }
