"""SEN12-FLOOD, Sentinel-1: every image once, and pairs of dates with a label of the second."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data.bigearthnet import PUBLISHED_STATISTICS
from sar_mixmae_jax.utils.errors import InputError, check_name
from tfds_builders import records
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan
from tfds_builders.sen12_flood import archive_plan
from tfds_builders.sen12_flood.pairing import RULES
from tfds_builders.sen12_flood.rasters import ZEROS


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Options of the build.

    Attributes:
      pairs: rule of pairing, "chronological" or "published".
      size: side of the images in pixels; sequences of another size are left out.
      zeros: meaning of a power of 0, "nodata" or "border".
      max_zeros: images with this share of zeros in a band, or more, are in no pair.
      validation_share: share of the training sequences that become `validation`.
      split_seed: seed of the choice of the validation sequences.
      train_list: path of the list of the training sequences; "": look for it.
      test_list: path of the list of the test sequences; "": look for it.
    """

    pairs: str = records.option("chronological", "rule that makes pairs: chronological, published")
    size: int = records.option(512, "side of the images; sequences of another size are left out")
    zeros: str = records.option(
        "nodata", "what a power of 0 means: nodata; border: nodata only at the edge, else dark"
    )
    max_zeros: float = records.option(
        0.25, "images with this share of zeros in a band, or more, are in no pair"
    )
    validation_share: float = records.option(
        0.15, "share of the training sequences for validation, in whole groups; 0: no validation"
    )
    split_seed: int = records.option(0, "seed of the choice of the validation sequences")
    train_list: str = records.option("", "list of the training sequences, if it is not found")
    test_list: str = records.option("", "list of the test sequences, if it is not found")


class Builder(PatchBuilder):
    """Builder of `train`, `validation`, `test`; the pairs of each split are in the metadata."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Images once, pairs as references."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(
            name="chronological",
            description="every image of full coverage with the latest dry one before it that was "
            "seen from the same orbit",
        ),
        Config(
            name="published",
            description="the pairs of the published preparation: every dry image with every other "
            "one of its sequence, once",
            pairs="published",
        ),
    ]
    ACCEPTS_SINGLE_FILE = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "name the zip of SEN12-FLOOD, the folder that holds it, or its unpacked sequences, as "
        "--manual_dir, with S1list.json and the lists of the split (CSV files with train and with "
        "test in their names) in the zip, in the folder or beside it"
    )

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        return records.dataset_info(
            self,
            size=config.size,
            statistics=PUBLISHED_STATISTICS["bigearthnet_v1"],
            features={
                "sequence": tfds.features.Text(doc="the place"),
                "flooded": _number(np.uint8, "1 from the first flood of the sequence on"),
                "full_coverage": _number(np.int8, "1: covers the whole place; -1: not stated"),
                "orbit_pass": tfds.features.Text(doc="ASCENDING, DESCENDING; empty where unknown"),
                "relative_orbit": _number(np.int16, "1 to 175; 0 where unknown"),
                "zero_share": _number(np.float64, "share of zeros in the band that has more"),
            },
            quantity="not stated",
            pixel_spacing_m=[[10.0, 10.0]],
            description="Sentinel-1 IW GRD backscatter in dB (radiometrically calibrated and "
            "terrain corrected; sigma0 or gamma0 is not stated) of places in Africa, the Middle "
            "East and Australia, December 2018 to May 2019, on the 10 m grid of Sentinel-2, and "
            "pairs of dates: is the second one flooded?",
            homepage="https://ieee-dataport.org/open-access/"
            "sen12-flood-sar-and-multispectral-dataset-flood-detection",
            citation="""@article{rambour2020flood,
  title={Flood Detection in Time Series of Optical and {SAR} Images},
  author={Rambour, Cl{\\'e}ment and Audebert, Nicolas and Koeniguer, Elise and Le Saux, Bertrand and
    Crucianu, Michel and Datcu, Mihai},
  journal={ISPRS Archives of the Photogrammetry, Remote Sensing and Spatial Information Sciences},
  volume={XLIII-B2-2020}, pages={1343--1346}, year={2020}}""",
            license="contains modified Copernicus data 2018-2019",
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Plan the images of the official splits."""
        del scratch, processes
        config = self.builder_config
        check_name(RULES, config.pairs, "value of --pairs")
        check_name(ZEROS, config.zeros, "value of --zeros")
        for name, value, low, high in (
            ("size", config.size, 8, 4096),
            ("max_zeros", config.max_zeros, 0.001, 1.0),
            ("validation_share", config.validation_share, 0.0, 0.9),
            ("split_seed", config.split_seed, 0, 2**63),
        ):
            if not low <= value <= high:
                raise InputError(f"--{name}={value}: expected from {low} to {high}")
        options = {name: getattr(config, name) for name in archive_plan.Options._fields}
        return archive_plan.plan(root, archive_plan.Options(**options))


def _number(dtype: type, doc: str) -> tfds.features.Tensor:
    """Return a scalar feature that is stored with all its bits."""
    return tfds.features.Tensor(
        shape=(), dtype=dtype, encoding=tfds.features.Encoding.BYTES, doc=doc
    )
