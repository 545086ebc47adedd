"""BigEarthNet-S1 v1.0 from its patch folders as they lie on disk."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import tensorflow_datasets as tfds

from sar_mixmae_jax.errors import InputError, first_line
from sar_mixmae_jax.radiometry import BANDS
from tfds_builders import records
from tfds_builders.bigearthnet_s1.labels import CLASSES_19, to_19
from tfds_builders.geotiff import find_bands, read_patch

SIZE = 120


class Builder(tfds.core.ShardBasedBuilder):
    """One split, `train`, of every patch folder below `manual_dir`."""

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {"1.0.0": "Patches without the official splits."}
    BUILDER_CONFIGS: ClassVar[list[tfds.core.BuilderConfig]] = [
        tfds.core.BuilderConfig(name="v1", description="BigEarthNet-S1 v1.0, one split")
    ]
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Unpack BigEarthNet-S1-v1.0 and name it as --manual_dir."

    def _info(self) -> tfds.core.DatasetInfo:
        return records.dataset_info(
            self,
            size=SIZE,
            classes=CLASSES_19,
            mean=(-19.2309, -12.5951),
            std=(3.1672, 2.9644),
            statistics_of="BigEarthNet v1 as published with SAR-W-MixMAE: std is the mean of "
            "per-patch deviations, not the deviation over all pixels",
            description="Sentinel-1 IW GRD backscatter in dB, 120x120 px of 10 m, UTM, with "
            "CORINE land cover in 19 classes. Official splits of v1 are spatially dependent; "
            "this build has one split.",
            homepage="https://bigearth.net",
            citation=CITATION,
            license="CDLA-Permissive-1.0",
        )

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[records.Example]]]]:
        return {"train": records.shards(patch_folders(Path(dl_manager.manual_dir)), read)}


def patch_folders(root: Path) -> list[Path]:
    """The patch folders right below `root`, by name; hidden folders and files are passed over.

    Raises:
      InputError: there is none, or a link leads nowhere.
    """
    entries = [path for path in sorted(root.iterdir()) if not path.name.startswith((".", "__"))]
    for path in entries:
        if not path.exists():
            raise InputError(f"{path}: found a link to nothing, expected a patch folder: mend it")
    folders = [path for path in entries if path.is_dir()]
    if not any((path / f"{path.name}_{BANDS[0]}.tif").exists() for path in folders):
        raise InputError(
            f"{root}: found no patch folder among {len(entries)} entries, expected folders such as "
            "S1A_IW_GRDH_1SDV_20170613T165043_33UUP_87_48: name the folder that holds them"
        )
    return folders


def read(folder: Path) -> records.Example:
    """Reads a patch folder: both bands and the labels.

    Raises:
      InputError: a file is missing or is not what it should be.
    """
    backscatter = read_patch(find_bands(folder, BANDS), size=SIZE, unit="dB")
    return folder.name, {
        "id": folder.name,
        "backscatter": backscatter,
        "labels": records.multi_hot(read_labels(folder), CLASSES_19),
    }


def read_labels(folder: Path) -> list[str]:
    """The 19-class names in a patch's `_labels_metadata.json`.

    Raises:
      InputError: the file is missing, is not JSON, or names an unknown class.
    """
    path = folder / f"{folder.name}_labels_metadata.json"
    try:
        labels = json.loads(path.read_text())["labels"]
        if not isinstance(labels, list) or not all(isinstance(name, str) for name in labels):
            raise TypeError(f"labels is {labels!r}")
        return to_19(labels)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path}: found no usable labels ({first_line(error)}), expected JSON with a list "
            "`labels` of CORINE names: copy the file again"
        ) from error


CITATION = """@article{sumbul2021bigearthnet,
  title={{BigEarthNet-MM}: A Large-Scale, Multimodal, Multilabel Benchmark Archive for Remote
    Sensing Image Classification and Retrieval},
  author={Sumbul, Gencer and de Wall, Arne and Kreuziger, Tristan and Marcelino, Filipe and
    Costa, Hugo and Benevides, Pedro and Caetano, M{\\'a}rio and Demir, Beg{\\"u}m and
    Markl, Volker},
  journal={IEEE Geoscience and Remote Sensing Magazine}, volume={9}, number={3}, pages={174--180},
  year={2021}}"""
