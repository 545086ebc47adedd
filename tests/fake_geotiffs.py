"""BigEarthNet-S1 v1 patch folders as they lie on disk, from simulated patches."""

import json
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin

from tfds_builders.synthetic_s1.simulator import simulate

LABELS = ["Sea and ocean", "Non-irrigated arable land", "Airports", "Coniferous forest"]


def write_band(path: Path, values: np.ndarray, **profile) -> None:
    """Writes a (rows, columns) array as a UTM GeoTIFF of 10 m pixels."""
    settings = {
        "driver": "GTiff",
        "count": 1,
        "height": values.shape[0],
        "width": values.shape[1],
        "dtype": values.dtype,
        "crs": "EPSG:32633",
        "transform": from_origin(404400, 5342400, 10, 10),
        **profile,
    }
    with rasterio.open(path, "w", **settings) as raster:
        raster.write(values, 1)


def write_patch(root: Path, number: int, size: int = 120) -> Path:
    """Writes one patch folder and returns it."""
    name = f"S1A_IW_GRDH_1SDV_20170613T165043_33UUP_{number}_48"
    folder = root / name
    folder.mkdir(parents=True)
    backscatter = simulate(size, (7, number)).backscatter
    for band, values in zip(("VH", "VV"), np.moveaxis(backscatter, -1, 0), strict=True):
        write_band(folder / f"{name}_{band}.tif", values)
    metadata = {"labels": LABELS[number % 2 : number % 2 + 2], "projection": "EPSG:32633"}
    (folder / f"{name}_labels_metadata.json").write_text(json.dumps(metadata))
    return folder


def write_patches(root: Path, count: int) -> Path:
    """Writes `count` patch folders below `root` and returns it."""
    for number in range(count):
        write_patch(root, number)
    return root
