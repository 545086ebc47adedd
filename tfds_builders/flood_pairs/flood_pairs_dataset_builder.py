"""Simulated scenes on two dates, half of them flooded in between, with water masks."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import records
from tfds_builders.flood_pairs.flood_simulator import INDEX, ITEM, pair_dates, read_record
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan
from tfds_builders.records import WATER_CLASSES
from tfds_builders.synthetic_s1.land_cover import CLASSES
from tfds_builders.synthetic_s1.simulator import SPLITS

TILE = 128
"""Side of the tiles that encoders take; the side of an image is a multiple."""
TRAIN_RATIO = {"train": 1, "validation": 4, "test": 2}
"""Ratio of the pairs of `train` to those of a split; `test` is large for precise results."""
PER_SHARD = 128
"""Records per shard, of 0.7 MB each."""


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Options of the simulation.

    Attributes:
      pairs: number of pairs in `train`.
      size: side of an image in pixels.
      seed: random seed of the simulation; equal seeds give equal pairs.
    """

    pairs: int = records.option(512, "number of pairs in train, even: half of them are flooded")
    size: int = records.option(256, f"side of an image in pixels, a multiple of {TILE}")
    seed: int = records.option(0, "seed of the simulation: equal seeds give equal pairs")


class Builder(PatchBuilder):
    """Builder of `train`, `validation` and `test`, of different scenes; half of each is flooded."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Water and land cover as masks; the records are those of 1.0.0.",
        "1.0.0": "Pairs of two dates with the truth.",
    }
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="small", description="512 + 128 + 256 pairs, for comparisons on one machine")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return records.dataset_info(
            self,
            size=size,
            classes=tuple(CLASSES),
            georeferenced=False,
            description="Simulated Sentinel-1 IW GRD backscatter (sigma0) in dB, pixels of 10 m: "
            "the same scene on two dates, with seasons and weather in between and a flood in half "
            "of the pairs; with the truth.",
            features={
                "noise_free": records.image_feature(size, np.float16),
                "land_cover": records.map_feature(
                    size, "index into the classes of the metadata; under floods what stands in them"
                ),
                "incidence_angle": tfds.features.Tensor(
                    shape=(), dtype=np.float32, doc="degrees at the centre"
                ),
                "water": records.map_feature(size, "1: water, also under woods, reeds and houses"),
                "flooded": tfds.features.Tensor(
                    shape=(), dtype=np.uint8, doc="1: there is a flood at this date"
                ),
                "flooded_fraction": tfds.features.Tensor(
                    shape=(), dtype=np.float32, doc="of the pixels, without water at the first date"
                ),
                "hard_case": tfds.features.Text(doc="of the pair; empty: none"),
                "sequence": tfds.features.Text(doc="of the dates of one scene"),
                "date": tfds.features.Text(doc="of the acquisition, ISO 8601"),
            },
            quantity="sigma0",
            pixel_spacing_m=[[10.0, 10.0]],
            masks={"water": WATER_CLASSES, "land_cover": tuple(CLASSES)},
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Number both dates of every pair, one after the other; no scene is in two splits."""
        del root, scratch, processes
        config = self.builder_config
        for name, value, low, high, step in (
            ("pairs", config.pairs, 2, 10**8, 2),
            ("size", config.size, TILE, 4096, TILE),
            ("seed", config.seed, 0, 2**63, 1),
        ):
            if not low <= value <= high or value % step:
                multiple = f", a multiple of {step}" if step > 1 else ""
                raise InputError(f"--{name}={value}: expected from {low} to {high}{multiple}")
        counts = [2 * -(-config.pairs // (2 * TRAIN_RATIO[split])) for split in SPLITS]
        return Plan(
            {
                split: np.array([(part, i // 2, i % 2) for i in range(2 * count)], dtype=ITEM)
                for part, (split, count) in enumerate(zip(SPLITS, counts, strict=True))
            },
            read_record,
            arguments=(config.size, config.seed),
            run_length=2,
            records_per_shard=PER_SHARD,
            index_features=INDEX,
            make_pairs=pair_dates,
            metadata={"caveats": ["simulated"]},
        )
