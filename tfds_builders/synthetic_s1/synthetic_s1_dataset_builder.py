"""Simulated Sentinel-1 patches with their noise-free backscatter and land-cover map."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import records
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan
from tfds_builders.records import WATER_CLASSES
from tfds_builders.synthetic_s1.land_cover import CLASSES
from tfds_builders.synthetic_s1.simulator import ITEM, SPLITS, read_record

HELD_OUT = 8
"""Ratio of the patches of `train` to those of `validation`, and of `test`."""


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Options of the simulation.

    Attributes:
      patches: number of patches in `train`.
      size: side of a patch in pixels.
      seed: random seed of the simulation; equal seeds give equal patches.
      bands: comma-separated, of one transmitted polarisation; see `simulator.simulate`.
    """

    patches: int = records.option(512, "number of patches in train")
    size: int = records.option(120, "side of a patch in pixels")
    seed: int = records.option(0, "seed of the simulation: equal seeds give equal patches")
    bands: str = records.option("VH,VV", "bands: VH and VV or one of them, or HV and HH likewise")


class Builder(PatchBuilder):
    """Builder of the splits `train`, `validation` and `test`, of different scenes."""

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Water as a feature; water and land cover as masks.",
        "1.0.0": "Physics of real patches; land-cover maps; held-out splits.",
        "0.1.0": "A first simulator.",
    }
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="small", description="512 patches, enough to try the program on a laptop")
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        bands = parse_bands(self.builder_config.bands)
        return records.dataset_info(
            self,
            size=size,
            bands=bands,
            classes=tuple(CLASSES),
            georeferenced=False,
            description="Simulated Sentinel-1 IW GRD backscatter (sigma0) in dB, pixels of 10 m: "
            "parcels, forests, water and villages with texture, correlated speckle, subtracted "
            "noise, point targets and swath borders; with the truth.",
            features={
                "noise_free": records.image_feature(size, bands=len(bands)),
                "land_cover": records.map_feature(size, "index into the classes of the metadata"),
                "water": records.map_feature(size, "1: calm or wind-roughened water"),
                "incidence_angle": tfds.features.Tensor(
                    shape=(), dtype=np.float32, doc="degrees at the centre"
                ),
            },
            quantity="sigma0",
            pixel_spacing_m=[[10.0, 10.0]],
            masks={"water": WATER_CLASSES, "land_cover": tuple(CLASSES)},
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Number the scenes of every split; no scene is in two splits."""
        del root, scratch, processes
        config = self.builder_config
        for name, value, low, high in (
            ("patches", config.patches, 1, 10**8),
            ("size", config.size, 32, 4096),
            ("seed", config.seed, 0, 2**63),
        ):
            if not low <= value <= high:
                raise InputError(f"--{name}={value}: expected from {low} to {high}")
        counts = [config.patches, *[-(-config.patches // HELD_OUT)] * 2]
        return Plan(
            {
                split: np.array([(number, i) for i in range(count)], dtype=ITEM)
                for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True))
            },
            read_record,
            arguments=(config.size, config.seed, parse_bands(config.bands)),
            metadata={"caveats": ["simulated"]},
        )


def parse_bands(names: str) -> tuple[str, ...]:
    """Return the bands of the config, in the order of the records.

    Raises:
      InputError: they are not among those that Sentinel-1 measures at once.
    """
    bands = records.dataset_bands(names)
    given = [name for name in names.split(",") if name.strip()]
    if len(bands) != len(given) or len({band[0] for band in bands}) != 1:  # V or H is transmitted
        raise InputError(
            f"--bands={names}: expected VH,VV or HV,HH, or one band, since a Sentinel-1 image has "
            "one transmitted polarisation"
        )
    return bands
