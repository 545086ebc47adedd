"""Patch folders like BigEarthNet-S1 v1.0 on disk, of simulated images: for tests, benchmarks."""

import json
from pathlib import Path

import numpy as np

from sar_mixmae_jax.radiometry import BANDS
from tfds_builders.geotiff import write_band
from tfds_builders.synthetic_s1.simulator import simulate

LABELS = ("Sea and ocean", "Non-irrigated arable land", "Airports", "Coniferous forest")


def write_patch(root: Path, number: int, size: int = 120) -> Path:
    """Writes the patch folder of a number below `root` and returns it."""
    name = f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_48"
    folder = root / name
    folder.mkdir(parents=True)
    backscatter = simulate(size, (7, number)).backscatter
    for band, values in zip(BANDS, np.moveaxis(backscatter, -1, 0), strict=True):
        write_band(folder / f"{name}_{band}.tif", values)
    metadata = {"labels": labels(number), "projection": "EPSG:32633"}
    (folder / f"{name}_labels_metadata.json").write_text(json.dumps(metadata))
    return folder


def write_patches(root: Path, count: int) -> Path:
    """Writes `count` patch folders below `root` and returns it."""
    for number in range(count):
        write_patch(root, number)
    return root


def labels(number: int) -> list[str]:
    """The CORINE labels of a patch: three of `LABELS`."""
    return [name for index, name in enumerate(LABELS) if index != number % len(LABELS)]
