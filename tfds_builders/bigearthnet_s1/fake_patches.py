"""Writer of BigEarthNet-S1 files with simulated images, for tests and benchmarks."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sar_mixmae_jax.data.bigearthnet import to_19
from sar_mixmae_jax.data.metadata import BANDS
from tfds_builders.bigearthnet_s1 import version1, version2
from tfds_builders.bigearthnet_s1.patch_files import band_files
from tfds_builders.geotiff import write_band
from tfds_builders.synthetic_s1.simulator import simulate

LABELS = ("Sea and ocean", "Non-irrigated arable land", "Airports", "Coniferous forest")


def patch_name(number: int) -> str:
    """Return the Sentinel-1 name of a patch, given its number."""
    return f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_48"


def labels(number: int) -> list[str]:
    """Return the CORINE labels of a patch: three of `LABELS`."""
    return [name for index, name in enumerate(LABELS) if index != number % len(LABELS)]


def write_patch(root: Path, number: int, size: int = 120) -> Path:
    """Write the patch of a number as version 1 has it, and return its folder."""
    folder = root / patch_name(number)
    write_bands(folder, number, size)
    metadata = {
        "labels": labels(number),
        "projection": "EPSG:32633",
        "corresponding_s2_patch": f"S2A_MSIL2A_20170613T101031_{number}_48",
        "scene_source": "S1A_IW_GRDH_1SDV_20170613T165043_20170613T165108_017018_01C579_7EEC",
    }
    version1.labels_file(folder).write_text(json.dumps(metadata))
    return folder


def write_bands(folder: Path, number: int, size: int = 120) -> None:
    """Write the two GeoTIFFs of a patch."""
    folder.mkdir(parents=True)
    backscatter = simulate(size, (7, number)).backscatter
    for path, values in zip(
        band_files(folder, BANDS), np.moveaxis(backscatter, -1, 0), strict=True
    ):
        write_band(path, values)


def write_patches(root: Path, count: int) -> Path:
    """Write `count` patch folders of version 1 into `root` and return `root`."""
    for number in range(count):
        write_patch(root, number)
    return root


def write_lists(root: Path, splits: Mapping[str, Sequence[int]]) -> None:
    """Write the official lists of version 1, given the patch numbers of each split."""
    for split, file in version1.LISTS.items():
        rows = [f"S2A_{number},{patch_name(number)}\n" for number in splits[split]]
        (root / file).write_text("".join(rows))


def table_row(number: int, split: str, **changes: Any) -> dict[str, Any]:
    """Return a row of the table of version 2, given the patch number and changed columns."""
    return {
        "patch_id": f"S2A_MSIL2A_20170613T101031_N9999_R022_T33UUP_{number}_48",
        "labels": to_19(labels(number)),
        "split": split,
        "country": "Austria",
        "s1_name": patch_name(number),
        "s2v1_name": f"S2A_MSIL2A_20170613T101031_{number}_48",
        "contains_seasonal_snow": False,
        "contains_cloud_or_shadow": False,
        **changes,
    }


def write_version2(root: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the patches and the table of version 2, given its rows; return `root`."""
    for row in rows:
        name = row["s1_name"]
        folder = root / "BigEarthNet-S1" / version2.scene_name(name) / name
        write_bands(folder, int(name.split("_")[-2]))
    write_table(root / version2.TABLE, rows)
    return root


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table of version 2, given its rows."""
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)
