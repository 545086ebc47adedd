"""Simulated Sentinel-1 patches with their noise-free backscatter."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import ClassVar

import tensorflow_datasets as tfds

from tfds_builders import records
from tfds_builders.synthetic_s1.simulator import CLASSES, simulate

SIZE = 120


@dataclasses.dataclass
class Config(tfds.core.BuilderConfig):
    """How much is simulated.

    Attributes:
      patches: number of patches.
      seed: the same seed gives the same patches.
    """

    patches: int = 512
    seed: int = 0


class Builder(tfds.core.ShardBasedBuilder):
    """One split, `train`."""

    VERSION = tfds.core.Version("0.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"0.1.0": "A first simulator."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="small", description="512 patches, enough to try the program on a laptop")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return records.dataset_info(
            self,
            size=SIZE,
            classes=tuple(CLASSES),
            mean=MEAN,
            std=STD,
            statistics_of="all valid pixels of the 512 patches of seed 0",
            description="Simulated Sentinel-1 backscatter in dB, 120x120 px of 10 m: regions of "
            "land cover with texture, correlated speckle, subtracted noise and swath borders.",
            features={"noise_free": records.image(SIZE)},
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[records.Example]]]]:
        del dl_manager
        config = self.builder_config
        seeds = [(config.seed, number) for number in range(config.patches)]
        return {"train": records.shards(seeds, example)}


def example(seed: tuple[int, int]) -> records.Example:
    """The record of one simulated patch."""
    patch = simulate(SIZE, seed)
    name = "synthetic_{}_{:06d}".format(*seed)
    return name, {
        "id": name,
        "backscatter": patch.backscatter,
        "noise_free": patch.noise_free,
        "labels": records.multi_hot(patch.classes, tuple(CLASSES)),
    }


MEAN = (-18.92, -11.65)
STD = (6.69, 5.21)
