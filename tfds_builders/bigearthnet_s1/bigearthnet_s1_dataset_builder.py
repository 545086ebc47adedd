"""TFDS builder of BigEarthNet-S1, versions 1 and 2, with the official splits."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from sar_mixmae_jax.data.bigearthnet import CLASSES_19, PUBLISHED_STATISTICS
from sar_mixmae_jax.data.metadata import Statistics
from sar_mixmae_jax.utils.errors import InputError, look_up
from tfds_builders import records
from tfds_builders.bigearthnet_s1 import version1, version2
from tfds_builders.bigearthnet_s1.patch_files import SIZE
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Config of BigEarthNet-S1.

    Attributes:
      release: "v1" or "v2".
      unsplit: v1 only: put all patch folders into `train`, without the official lists.
      snow_and_cloud: v2 only: include patches with seasonal snow, cloud or shadow.
    """

    release: str = records.option("v1", "version of BigEarthNet: v1 or v2")
    unsplit: bool = records.option(False, "v1: all patch folders as train, without the lists")
    snow_and_cloud: bool = records.option(False, "v2: also patches with snow, cloud or shadow")


class Builder(PatchBuilder):
    """Splits `train`, `validation`, `test`; pretraining reads `train+validation`."""

    VERSION = tfds.core.Version("2.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "2.0.0": "Official splits, version 2, time and place of every patch.",
        "1.0.0": "Patches of version 1 without the official splits.",
    }
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="v1", description="BigEarthNet-S1 v1.0, official splits"),
        Config(name="v1_float16", description="the same, stored in half the size", dtype="float16"),
        Config(name="v1_unsplit", description="v1.0, all patch folders as train", unsplit=True),
        Config(name="v2", description="v2.0 (reBEN), official splits", release="v2"),
        Config(
            name="v2_float16",
            description="the same, stored in half the size",
            release="v2",
            dtype="float16",
        ),
        Config(
            name="v2_snow_and_cloud",
            description="v2.0 with the patches that are not recommended",
            release="v2",
            snow_and_cloud=True,
        ),
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "name the folder that holds the unpacked patches and the official splits (train.csv, "
        "val.csv, test.csv for v1, metadata.parquet for v2) as --manual_dir"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        release = look_up(RELEASES, self.builder_config.release, "release")
        return records.dataset_info(
            self,
            size=SIZE,
            classes=CLASSES_19,
            statistics=release.statistics,
            features={name: tfds.features.Text() for name in release.text_features},
            quantity="sigma0",
            pixel_spacing_m=[[10.0, 10.0]],
            place_fields=3,  # of …_33UUP_87_48: tile, row and column
            description=f"Sentinel-1 IW GRD backscatter (sigma0, terrain corrected) in dB, 120x120 "
            f"px of 10 m, UTM, with CORINE land cover in 19 classes. {release.about}",
            homepage="https://bigearth.net",
            citation=release.citation,
            license="CDLA-Permissive-1.0",
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Plan the patches of every split by the official files; see the base class."""
        del scratch, processes
        config = self.builder_config
        if config.unsplit and config.release != "v1":
            raise InputError("--unsplit is for v1: v2 has its splits in its table")
        if config.snow_and_cloud and config.release != "v2":
            raise InputError("--snow_and_cloud is for v2: the lists of v1 leave them out")
        if config.release == "v2":
            return version2.make_plan(root, snow_and_cloud=config.snow_and_cloud)
        return version1.make_plan(root, unsplit=config.unsplit)


@dataclasses.dataclass(frozen=True)
class Release:
    """A version of BigEarthNet.

    Attributes:
      statistics: statistics published with SAR-W-MixMAE.
      text_features: names of the text features that only this version has.
      about: end of the description.
      citation: BibTeX entry.
    """

    statistics: Statistics
    text_features: tuple[str, ...]
    about: str
    citation: str


RELEASES = {
    "v1": Release(
        PUBLISHED_STATISTICS["bigearthnet_v1"],
        ("s2_name", "scene"),
        "Version 1: its official splits are spatially dependent, results on it say so.",
        """@article{sumbul2021bigearthnet,
  title={{BigEarthNet-MM}: A Large-Scale, Multimodal, Multilabel Benchmark Archive for Remote
    Sensing Image Classification and Retrieval},
  author={Sumbul, Gencer and de Wall, Arne and Kreuziger, Tristan and Marcelino, Filipe and
    Costa, Hugo and Benevides, Pedro and Caetano, M{\\'a}rio and Demir, Beg{\\"u}m and
    Markl, Volker},
  journal={IEEE Geoscience and Remote Sensing Magazine}, volume={9}, number={3}, pages={174--180},
  year={2021}}""",
    ),
    "v2": Release(
        PUBLISHED_STATISTICS["bigearthnet_v2"],
        ("s2_name", "v1_name", "country"),
        "Version 2 (reBEN): splits drawn apart in space. v1_name ties a patch to version 1: an "
        "encoder pretrained on version 1 may have seen the test patches of version 2.",
        """@inproceedings{clasen2025reben,
  title={{reBEN}: Refined {BigEarthNet} Dataset for Remote Sensing Image Analysis},
  author={Clasen, Kai Norman and Hackel, Leonard and Burgert, Tom and Sumbul, Gencer and
    Demir, Beg{\\"u}m and Markl, Volker},
  booktitle={IEEE International Geoscience and Remote Sensing Symposium}, year={2025}}""",
    ),
}
