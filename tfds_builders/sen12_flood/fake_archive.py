"""SEN12-FLOOD on disk with simulated images, for tests and benchmarks."""

import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rasterio.transform import Affine, array_bounds
from rasterio.warp import Resampling, calculate_default_transform, reproject

from sar_mixmae_jax.data.metadata import BANDS
from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.geotiff import write_band
from tfds_builders.sen12_flood.archive import ORBIT_OFFSETS, ORBITS_PER_CYCLE
from tfds_builders.sen12_flood.index import LIST
from tfds_builders.synthetic_s1.simulator import simulate

FOLDER = "SEN12FLOOD"
FIRST_DAY = datetime(2018, 12, 1)
UTM = "EPSG:32736"
CORNER = (690_000.0, 7_810_000.0)  # near Beira
SPACING = 50_000.0  # metres between places
LOOKS = 4.4
WATER_DB = {"VH": -28.0, "VV": -21.0}


class Shot(NamedTuple):
    """An image of a place.

    Attributes:
      day: of acquisition, days since `FIRST_DAY`.
      flooded: True if the lower third of the image is water.
      satellite: "S1A" or "S1B".
      orbit_pass: "ASCENDING" or "DESCENDING".
      relative_orbit: 1 to 175.
      coverage: share of the columns that are imaged.
      piece: number of the slice in the datatake; neighbouring slices are 25 s apart.
    """

    day: int
    flooded: bool = False
    satellite: str = "S1A"
    orbit_pass: str = "DESCENDING"
    relative_orbit: int = 6
    coverage: float = 1.0
    piece: int = 0


class Place(NamedTuple):
    """A sequence.

    Attributes:
      shots: images in the order of the list.
      frame: number of the footprint; places of one frame share Sentinel-1 products.
    """

    shots: Sequence[Shot]
    frame: int = 0


def product(shot: Shot, frame: int = 0) -> str:
    """Return the name of the Sentinel-1 product of an image."""
    hour = 3 if shot.orbit_pass == "DESCENDING" else 16
    start = FIRST_DAY + timedelta(days=shot.day, hours=hour, seconds=25 * shot.piece)
    cycle = 130 + shot.day // 12
    orbit = ORBIT_OFFSETS[shot.satellite] + shot.relative_orbit - 1 + ORBITS_PER_CYCLE * cycle
    times = f"{start:%Y%m%dT%H%M%S}_{start + timedelta(seconds=25):%Y%m%dT%H%M%S}"
    name = f"{shot.satellite}_IW_GRDH_1SDV_{times}_{orbit:06d}_{orbit + 20_000:06X}"
    return f"{name}_{zlib.crc32(f'{name} {frame}'.encode()) & 0xFFFF:04X}"


def describe(folder: str, place: Place) -> dict[str, Any]:
    """Return the entry of a sequence in S1list.json."""
    images = {
        str(number): {
            "date": f"{FIRST_DAY + timedelta(days=shot.day):%Y-%m-%d}",
            "FLOODING": shot.flooded,
            "FULL-DATA-COVERAGE": shot.coverage == 1.0,
            "filename": product(shot, place.frame),
            "orbit": shot.orbit_pass,
        }
        for number, shot in enumerate(place.shots, start=1)
    }
    return {"count": len(images), "folder": folder, "geography": "Beira", **images}


def write_sequence(folder: Path, place: Place, number: int, size: int) -> None:
    """Write the GeoTIFFs of a sequence.

    Args:
      folder: folder of the sequence.
      place: its images.
      number: number of the place; determines its position and its scene.
      size: side of the Sentinel-2 grid in pixels of 10 m.
    """
    folder.mkdir(parents=True)
    corner = (CORNER[0] + SPACING * (number % 8), CORNER[1] - SPACING * (number // 8))
    grid = Affine(10.0, 0.0, corner[0], 0.0, -10.0, corner[1])
    red = np.full((size, size), 800, np.uint16)
    for day in ("2019-01-24", "2019-01-29"):
        for band in ("B03", "B04"):
            write_band(folder / f"S2_{day}_{band}.tif", red, crs=UTM, transform=grid)
    margin = size // 16 + 4
    wide = grid * Affine.translation(-margin, -margin)
    ground = simulate(size + 2 * margin, (11, number)).noise_free
    for index, shot in enumerate(place.shots):
        rng = np.random.default_rng((number, index))
        for band, values in zip(BANDS, np.moveaxis(ground, -1, 0), strict=True):
            power = db_to_linear(np.nan_to_num(values, nan=-15.0))
            power *= rng.gamma(LOOKS, 1 / LOOKS, power.shape)
            if shot.flooded:
                water = db_to_linear(WATER_DB[band])
                low = power[-power.shape[0] // 3 :]
                low[:] = water * rng.gamma(LOOKS, 1 / LOOKS, low.shape)
            power[:, round(shot.coverage * power.shape[1]) :] = 0
            name = f"{product(shot, place.frame)}_corrected_{band}.tif"
            write_geographic(folder / name, power.astype(np.float32), wide)


def write_geographic(path: Path, power: np.ndarray, grid: Affine) -> None:
    """Write a band in longitude and latitude, as in the archive; 0 around it."""
    rows, columns = power.shape
    bounds = array_bounds(rows, columns, grid)
    transform, width, height = calculate_default_transform(UTM, "EPSG:4326", columns, rows, *bounds)
    warped = np.zeros((height, width), np.float32)
    reproject(
        power,
        warped,
        src_transform=grid,
        src_crs=UTM,
        dst_transform=transform,
        dst_crs="EPSG:4326",
        resampling=Resampling.nearest,
    )
    write_band(path, warped, crs="EPSG:4326", transform=transform)


def write_archive(
    root: Path,
    places: Mapping[str, Place],
    splits: Mapping[str, Sequence[str]],
    size: int = 64,
) -> Path:
    """Write an unpacked archive and the lists of its splits.

    Args:
      root: folder for the lists and the folder of the archive.
      places: sequences by id.
      splits: ids by the name of their list.
      size: side of the images in pixels.

    Returns:
      Path of the folder of the archive.
    """
    folder = root / FOLDER
    for number, (name, place) in enumerate(places.items()):
        write_sequence(folder / name, place, number, size)
    listed = {name: describe(name, place) for name, place in places.items()}
    (folder / LIST).write_text(json.dumps(listed))
    for split, names in splits.items():
        (root / f"{split}.csv").write_text("".join(f"{name}\n" for name in names))
    return folder


def pack(folder: Path, path: Path) -> Path:
    """Pack an unpacked archive, with its folder, into a zip; return the path of the zip."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
    return path


DRY = (Shot(0), Shot(6, satellite="S1B"), Shot(12))
FLOOD = (
    Shot(0),
    Shot(5, orbit_pass="ASCENDING", relative_orbit=101),
    Shot(6, satellite="S1B"),
    Shot(17, orbit_pass="ASCENDING", relative_orbit=101, coverage=0.5),
    Shot(18, flooded=True),
    Shot(24, flooded=True),
)
EXAMPLE = {
    "0140": Place(FLOOD, frame=1),
    "0141": Place(FLOOD, frame=1),
    "0142": Place(DRY, frame=1),
    "0167": Place(FLOOD, frame=2),
    "0180": Place(FLOOD, frame=3),
    "0181": Place(DRY, frame=4),
    "5": Place(FLOOD, frame=1),
    "22": Place(DRY, frame=5),
    "0300": Place(DRY, frame=6),
}
"""Six training sequences, two test sequences and one of no list.

"5" is a test sequence that shares the products of "0140" to "0142".
"""

EXAMPLE_SPLITS = {"train": ["0140", "0141", "0142", "0167", "0180", "0181"], "test": ["5", "22"]}
