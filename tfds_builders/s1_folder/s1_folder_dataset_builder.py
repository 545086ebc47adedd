"""TFDS builder of patches cut from a folder of analysis-ready Sentinel-1 GeoTIFFs."""

import dataclasses
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from sar_mixmae_jax.data import metadata
from sar_mixmae_jax.data.metadata import POLARISATIONS, QUANTITIES
from sar_mixmae_jax.utils.errors import InputError, check_name
from tfds_builders import records, units
from tfds_builders.patch_builder import PatchBuilder
from tfds_builders.plan import Plan
from tfds_builders.s1_folder.file_selection import UserMetadata
from tfds_builders.s1_folder.label_masks import LabelMasks, parse_masks
from tfds_builders.s1_folder.layer_names import parse_band_pattern
from tfds_builders.s1_folder.scene_reader import NodataSettings
from tfds_builders.s1_folder.window_plan import MASK, make_plan
from tfds_builders.s1_folder.windows import WindowSettings


@dataclasses.dataclass
class Config(records.PatchConfig):
    """Config of a folder of GeoTIFFs.

    Attributes:
      bands: names of the bands of a file in their order, comma-separated, where the files do not
        state them. The polarisations among them are the bands of the dataset; empty: VH and VV.
      unit: "dB" or "linear", where the files do not state it.
      quantity: "sigma0" or "gamma0", where the files do not state it.
      nodata: number that means nodata besides NaN and the tagged value; empty: none.
      band_pattern: pattern of the names of single-band files, with {band} in place of the
        polarisation, or a pattern for each polarisation; empty: polarisations are searched.
      mask: path of a GeoTIFF of valid pixels; empty: none.
      zero_block: side in pixels of a square of zeros that makes their region nodata; 0: none.
      erode_border: number of pixels beside nodata at the border that are nodata too.
      use_gcps: warp images that have ground control points in place of a position by them.
      size: side of a patch in pixels.
      overlap: overlap of neighbouring patches in pixels.
      max_nodata: largest fraction of nodata in a patch.
      masks: folder with the masks of the scenes, NAME.tif; empty: none.
      classes: names of the values 0, 1, … of the masks, comma-separated.
    """

    bands: str = records.option(
        "", "bands of a file in their order, such as VV,VH or HH; the dataset has these"
    )
    unit: str = records.option("", "unit of the files: dB or linear")
    quantity: str = records.option("", "quantity of the files: sigma0 or gamma0")
    nodata: str = records.option("", "number that means nodata besides NaN and the tagged value")
    band_pattern: str = records.option(
        "", "names of single-band files: *_{band}_* or VV=*_co.tif,VH=*_cross.tif"
    )
    mask: str = records.option("", "GeoTIFF of valid pixels: nodata where it is 0 or ends")
    zero_block: int = records.option(
        16, "zeros of a band are nodata in regions with a square of them of this side; 0: never"
    )
    erode_border: int = records.option(0, "pixels beside nodata at the border that are nodata too")
    use_gcps: bool = records.option(False, "warp images by their ground control points")
    size: int = records.option(128, "side of a patch in pixels")
    overlap: int = records.option(0, "overlap of neighbouring patches in pixels")
    max_nodata: float = records.option(0.2, "largest fraction of nodata in a patch")
    masks: str = records.option("", "folder of masks of classes, named and placed as the scenes")
    classes: str = records.option("", "names of the values 0, 1, … of the masks: land,water")


class Builder(PatchBuilder):
    """One split, `train`: neighbouring patches are alike, so that a random split would leak."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Folders of GeoTIFFs."}
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(name="default", description="files that say themselves what they hold, 128 px")
    ]
    ACCEPTS_ANY_CONFIG_NAME = True
    MANUAL_DOWNLOAD_INSTRUCTIONS = "name the folder of the GeoTIFFs as --manual_dir"

    def _info(self) -> tfds.core.DatasetInfo:
        size, masks = self.builder_config.size, _masks(self.builder_config)
        labels: dict[str, Any] = {}
        if masks.classes:
            labels = {"masks": {MASK: masks.classes}, "place_fields": 2}
        doc = "number of the class, -1: not labelled"
        return records.dataset_info(
            self,
            size=size,
            bands=parse_config(self.builder_config)[0].dataset_bands,
            description="Patches cut from Sentinel-1 GeoTIFFs, backscatter in dB.",
            features={
                "scene": tfds.features.Text(),
                "corner": tfds.features.Tensor(
                    shape=(2,), dtype=np.int32, doc="row and column of the upper left pixel"
                ),
                **({MASK: records.map_feature(size, doc, np.int8)} if labels else {}),
            },
            floor_db=metadata.FLOOR_DB,
            **labels,
        )

    def plan(self, root: Path, scratch: Path, processes: int) -> Plan:
        """Plan the patches after one pass over all pixels; see the base class."""
        user, nodata, windows = parse_config(self.builder_config)
        if nodata.mask and not nodata.mask.is_file():
            raise InputError(f"--mask={nodata.mask}: found no such file, expected a GeoTIFF")
        masks = _masks(self.builder_config)
        if masks.folder and not masks.folder.is_dir():
            raise InputError(f"--masks={masks.folder}: found no such folder, expected the masks")
        return make_plan(root, scratch, user, nodata, windows, processes, masks)


def _masks(config: Config) -> LabelMasks:
    return parse_masks(config.masks, config.classes)


def parse_config(config: Config) -> tuple[UserMetadata, NodataSettings, WindowSettings]:
    """Return the settings of a config.

    Raises:
      InputError: a name or number of the config is not valid.
    """
    bands = tuple(name.strip().upper() for name in config.bands.split(",") if name.strip())
    if bands and (not set(POLARISATIONS) & set(bands) or len(set(bands)) < len(bands)):
        raise InputError(
            f"--bands={config.bands}: expected at least one of {', '.join(POLARISATIONS)} in the "
            "order of the files, each once, and any names for further bands"
        )
    if config.unit:
        check_name(units.UNITS, config.unit, "unit")
    if config.quantity:
        check_name(QUANTITIES, config.quantity, "quantity")
    try:
        nodata = float(config.nodata) if config.nodata else None
    except ValueError as error:
        raise InputError(f"--nodata={config.nodata}: expected a number") from error
    if config.size < 32 or not 0 <= config.overlap < config.size:
        raise InputError(
            f"--size={config.size} --overlap={config.overlap}: expected at least 32 pixels, and an "
            "overlap from 0 to below the size"
        )
    if not 0 <= config.max_nodata < 1:
        raise InputError(f"--max_nodata={config.max_nodata}: expected from 0 to below 1")
    if min(config.zero_block, config.erode_border) < 0:
        raise InputError(
            f"--zero_block={config.zero_block} --erode_border={config.erode_border}: expected "
            "pixels, at least 0"
        )
    mask = Path(config.mask).absolute() if config.mask else None
    pattern = parse_band_pattern(config.band_pattern) if config.band_pattern else None
    return (
        UserMetadata(bands, config.unit, config.quantity, pattern, config.use_gcps),
        NodataSettings(nodata, mask, config.zero_block, config.erode_border),
        WindowSettings(config.size, config.overlap, config.max_nodata),
    )
