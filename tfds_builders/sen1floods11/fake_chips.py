"""Writer of Sen1Floods11 files with simulated images, for tests."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.transform import Affine

from tfds_builders.geotiff import write_band, write_bands
from tfds_builders.sen1floods11.chips import KINDS, LISTS, METADATA
from tfds_builders.synthetic_s1.simulator import WATER, simulate

GRID = {"crs": "EPSG:4326", "transform": Affine(8.98e-05, 0, 10, 0, -8.98e-05, 20)}
DATES = {"Ghana": "2001-01-01", "Cambodia": "2001-02-02", "Bolivia": "2001-03-03"}
"""Invented day of each event in the table, by location; Sri-Lanka is not in it."""


def write_chip(root: Path, name: str, size: int, *, weak: bool = False, **changes: Any) -> None:
    """Write image and mask of a chip, the left columns of which are not labelled.

    Args:
      root: folder of the dataset.
      name: name of the chip, such as "Ghana_1".
      size: side in pixels.
      weak: whether it is weakly labelled.
      **changes: "image" (2, size, size) and "mask" (size, size), in place of the simulated ones.
    """
    kind = KINDS[weak]
    patch = simulate(size, (11, int(name.rsplit("_", 1)[1])))
    image = changes.get("image", np.moveaxis(patch.backscatter, -1, 0)[::-1])  # VV, VH
    mask = np.isin(patch.land_cover, WATER).astype(np.int16)
    mask[:, :4] = -1
    mask = changes.get("mask", mask)
    for part in (kind.images, kind.masks):
        (root / "data/flood_events" / kind.folder / part).mkdir(parents=True, exist_ok=True)
    folder = root / "data/flood_events" / kind.folder
    write_bands(
        folder / kind.images / f"{name}_{kind.images}.tif",
        image,
        descriptions=("VV", "VH"),
        nodata=np.nan,
        **GRID,
    )
    write_band(folder / kind.masks / f"{name}_{kind.masks}.tif", mask, **GRID)


def write_lists(root: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Write the official lists, given the names of the chips of each split; others are empty."""
    folder = root / "splits/flood_handlabeled"
    folder.mkdir(parents=True, exist_ok=True)
    for split, part in LISTS.items():
        rows = [f"{name}_S1Hand.tif,{name}_LabelHand.tif\n" for name in splits.get(split, ())]
        (folder / f"flood_{part}_data.csv").write_text("".join(rows))


def write_events(root: Path) -> None:
    """Write the table of events, with the acquisition dates in `DATES`."""
    features = [
        {"type": "Feature", "properties": {"ID": number, "location": name, "s1_date": day}}
        for number, (name, day) in enumerate(DATES.items(), start=1)
    ]
    (root / METADATA).write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def write_dataset(root: Path, size: int) -> Path:
    """Write eight chips, two of them weakly labelled, with lists and events; return `root`.

    "Ghana_3" has no label, "Mekong_5" no measurement, all of it labelled water.
    """
    splits = {
        "train": ["Ghana_1", "Sri-Lanka_2", "Ghana_3"],
        "validation": ["Ghana_4"],
        "test": ["Mekong_5"],
        "bolivia": ["Bolivia_6"],
    }
    for names in splits.values():
        for name in names:
            changes: dict[str, Any] = {}
            if name == "Ghana_3":
                changes["mask"] = np.full((size, size), -1, np.int16)
            if name == "Mekong_5":
                changes["image"] = np.full((2, size, size), np.nan, np.float32)
                changes["mask"] = np.ones((size, size), np.int16)
            write_chip(root, name, size, **changes)
    for name in ("Ghana_7", "Bolivia_8"):
        write_chip(root, name, size, weak=True)
    write_lists(root, splits)
    write_events(root)
    return root
