"""TFDS builder of Sen1Floods11 with the official splits."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.utils.errors import InputError
from tfds_builders import records
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan
from tfds_builders.sen1floods11.chips import make_plan

CITATION = """@inproceedings{bonafilia2020sen1floods11,
  title={{Sen1Floods11}: A Georeferenced Dataset to Train and Test Deep Learning Flood Algorithms
    for {Sentinel-1}},
  author={Bonafilia, Derrick and Tellman, Beth and Anderson, Tyler and Issenberg, Erica},
  booktitle={IEEE/CVF Conference on Computer Vision and Pattern Recognition Workshops},
  year={2020}}"""


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Config of Sen1Floods11.

    Attributes:
      weak: train on the weakly labelled chips in place of the hand-labelled ones.
      size: side of a chip in pixels.
    """

    weak: bool = records.option(False, "train on the weakly labelled chips")
    size: int = records.option(512, "side of a chip in pixels")


class Builder(PatchBuilder):
    """Builder of `train`, `validation`, `test` and `bolivia`, an event that no other split has."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Chips of v1.1 with masks of water."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="hand", description="hand-labelled chips, official splits"),
        Config(
            name="weak",
            description="weakly labelled chips for training, hand-labelled ones otherwise",
            weak=True,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "name the folder v1.1 of the dataset as --manual_dir"

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        counts = {
            "labelled": "labelled pixels",
            "labelled_water": "pixels labelled water",
            "unmeasured_water": "pixels labelled water where a band has no measurement",
        }
        return records.dataset_info(
            self,
            size=size,
            description="Sentinel-1 IW GRD backscatter (sigma0, terrain corrected) in dB of eleven "
            "flood events, pixels of 10 m at the equator in EPSG:4326, with masks of all water, "
            "not only of floods, drawn on Sentinel-2 images.",
            features={
                "water": records.map_feature(size, "1: water, -1: not labelled", np.int8),
                "event": tfds.features.Text(doc="of the chip, as in its name"),
                **{
                    name: tfds.features.Tensor(shape=(), dtype=np.int32, doc=doc)
                    for name, doc in counts.items()
                },
            },
            quantity="sigma0",
            pixel_spacing_m=[[10.0, 10.0]],
            masks={"water": records.WATER_CLASSES},
            place_fields=1,  # of Sri-Lanka_101973: the number of the chip
            homepage="https://github.com/cloudtostreet/Sen1Floods11",
            citation=CITATION,
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Plan the chips of every split by the official lists; see the base class."""
        del scratch, processes
        config = self.builder_config
        if not 32 <= config.size <= 4096:
            raise InputError(f"--size={config.size}: expected from 32 to 4096")
        return make_plan(root, config.size, weak=config.weak)
