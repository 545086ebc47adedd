"""Tables of the simulator: backscatter of the classes, composition of the landscapes."""

import dataclasses

import numpy as np
from scipy.special import ndtri

from tfds_builders.synthetic_s1.fields import fractal_field, smooth_fields


@dataclasses.dataclass(frozen=True)
class LandCover:
    """Backscatter of a class at an incidence of 38 degrees.

    Attributes:
      vh: typical VH backscatter, dB.
      vv: typical VV backscatter, dB.
      texture: order of the gamma texture; larger is smoother.
      region_std: standard deviation between regions of the class in a scene, dB.
      slope_vh: change of VH with incidence, dB per degree.
      slope_vv: change of VV with incidence, dB per degree.
      targets: point targets per pixel.
      scene_std: standard deviation of the class between scenes, both bands together, dB: phenology,
        weather, biome.
      relief: True if slopes of the ground modulate the backscatter.
      hh: typical HH over VV, dB.
      slope_hh: change of HH over VV with incidence, dB per degree.
    """

    vh: float
    vv: float
    texture: float
    region_std: float = 1.3
    slope_vh: float = -0.15
    slope_vv: float = -0.15
    targets: float = 1e-4
    scene_std: float = 1.2
    relief: bool = True
    hh: float = 0.0
    slope_hh: float = 0.0


def _water(vh: float, vv: float, texture: float, slope_vv: float, targets: float) -> LandCover:
    """Return a class of water, with the polarisation ratio of the sea (Thompson et al. 1998).

    20 log10((1 + 0.6 tan² θ) / (1 + 2 tan² θ)): at 38 degrees -4.2 dB, and -0.18 dB per degree.
    """
    return LandCover(
        vh, vv, texture, 0.0, -0.3, slope_vv, targets, 1.8, relief=False, hh=-4.2, slope_hh=-0.18
    )


# Typical values are domain knowledge; calm water was measured: -27.7 (VH) and -20.7 dB (VV).
# HH over VV: docs/datasets.md has the sources.
CLASSES = {
    "Calm water": _water(-28.0, -21.0, 80, -0.7, 2e-5),
    "Wind-roughened water": _water(-26.0, -14.5, 60, -0.8, 5e-5),
    "Crops": LandCover(-18.2, -11.7, 30, hh=0.5),
    "Bare soil": LandCover(-20.5, -12.7, 35, hh=-0.7),
    "Wet soil": LandCover(-17.5, -9.7, 30, hh=-1.5),
    "Grassland": LandCover(-17.0, -11.5, 40),
    "Forest": LandCover(-13.7, -8.3, 30, 0.8, -0.1, -0.1, 3e-5),
    "Urban": LandCover(-13.0, -7.0, 3, targets=0.012, hh=1.0),
    "Wetland": LandCover(-18.0, -11.0, 15, hh=1.5),
    "Smooth sand or asphalt": LandCover(-27.0, -20.0, 30, 1.8, -0.2, -0.2, hh=-3.0, slope_hh=-0.14),
    "Snow or frozen ground": LandCover(-21.8, -15.0, 30),
}
NUMBER = {name: number for number, name in enumerate(CLASSES)}


@dataclasses.dataclass(frozen=True)
class Landscape:
    """Composition of a scene.

    Attributes:
      share: share of the scenes, 0 to 1.
      parcels: weight of each class among the parcels of open land.
      parcel: shortest and longest mean length of parcels, pixels.
      warp: amplitude of the curvature of parcel borders, pixels.
      forest: lowest and highest share of the scene that is forest.
      urban: lowest and highest share that is built up.
      water: probabilities of a lake, a river and a coast.
      hedges: highest gain along borders of parcels, dB.
      relief: highest standard deviation due to slopes of the ground, dB.
    """

    share: float
    parcels: dict[str, float]
    parcel: tuple[float, float] = (14.0, 34.0)
    warp: float = 1.5
    forest: tuple[float, float] = (0.0, 0.25)
    urban: tuple[float, float] = (0.0, 0.03)
    water: tuple[float, float, float] = (0.08, 0.15, 0.0)
    hedges: float = 3.0
    relief: float = 1.0


LANDSCAPES = {
    "arable": Landscape(
        0.28, {"Crops": 0.55, "Bare soil": 0.2, "Wet soil": 0.1, "Grassland": 0.15}
    ),
    "pasture": Landscape(
        0.18,
        {"Grassland": 0.75, "Crops": 0.15, "Bare soil": 0.05, "Wetland": 0.05},
        parcel=(10.0, 22.0),
        hedges=6.0,
    ),
    "woodland": Landscape(
        0.22,
        {"Grassland": 0.4, "Wetland": 0.25, "Crops": 0.25, "Bare soil": 0.1},
        warp=4.0,
        forest=(0.5, 0.95),
        urban=(0.0, 0.005),
        water=(0.3, 0.15, 0.0),
        relief=2.0,
    ),
    "coast": Landscape(
        0.13,
        {"Grassland": 0.4, "Crops": 0.35, "Wetland": 0.1, "Smooth sand or asphalt": 0.15},
        urban=(0.0, 0.1),
        water=(0.0, 0.0, 1.0),
    ),
    "town": Landscape(
        0.07,
        {"Grassland": 0.4, "Crops": 0.3, "Bare soil": 0.1, "Smooth sand or asphalt": 0.2},
        parcel=(8.0, 18.0),
        urban=(0.25, 0.7),
        water=(0.05, 0.2, 0.1),
    ),
    "wetland": Landscape(
        0.05,
        {"Wetland": 0.75, "Grassland": 0.15, "Wet soil": 0.1},
        parcel=(20.0, 45.0),
        warp=8.0,
        water=(0.5, 0.3, 0.1),
        hedges=0.0,
        relief=0.3,
    ),
    "winter": Landscape(
        0.04,
        {"Snow or frozen ground": 0.85, "Bare soil": 0.15},
        forest=(0.1, 0.6),
        relief=2.0,
    ),
    "barren": Landscape(
        0.03,
        {"Smooth sand or asphalt": 0.5, "Bare soil": 0.5},
        parcel=(20.0, 45.0),
        warp=8.0,
        forest=(0.0, 0.02),
        water=(0.05, 0.0, 0.1),
        hedges=0.0,
        relief=2.0,
    ),
}


SHORE_STEPS = {36: 1.0, 13: 0.4, 4: 0.13}  # of lakes and coasts
FOREST_STEPS = {26: 1.0, 8: 0.5, 3: 0.25}
URBAN_STEPS = {22: 1.0, 5: 0.5}
WIND_STEP = 30  # pixels between grid points of gusts and shelter


def draw_landscape(rng: np.random.Generator) -> Landscape:
    """Draw a landscape by the shares of `LANDSCAPES`."""
    landscapes = tuple(LANDSCAPES.values())
    shares = np.array([landscape.share for landscape in landscapes])
    return landscapes[rng.choice(len(landscapes), p=shares / shares.sum())]


def draw_parcels(
    rng: np.random.Generator, size: int, landscape: Landscape
) -> tuple[np.ndarray, int]:
    """Draw parcels in strips of a common orientation.

    Args:
      rng: random numbers of the scene.
      size: side in pixels.
      landscape: length of the parcels and warp of their borders.

    Returns:
      (size, size) int32 number of the parcel of every pixel, and the number of parcels.
    """
    place = np.arange(size, dtype=np.float32) - size / 2
    rows, columns = np.float32(landscape.warp) * smooth_fields(rng, 2, size, 20)
    across, along = _rotate(rows + place[:, None], columns + place, rng.uniform(0, np.pi))
    extent = 2 * size + 40
    length = rng.uniform(*landscape.parcel)
    strip = _cuts(rng, 1, extent, length / 1.6)[0][_index(across, extent)]
    strips = int(strip.max()) + 1
    cells = _cuts(rng, strips, extent, length)
    cells[1:] += np.cumsum(cells[:-1, -1] + 1, dtype=np.int32)[:, None]
    skew = rng.normal(0, 0.1, strips).astype(np.float32)  # corners are not all square
    region = cells[strip, _index(along + skew[strip] * across, extent)]
    return region, int(cells[-1, -1]) + 1


def _rotate(rows: np.ndarray, columns: np.ndarray, angle: float) -> tuple[np.ndarray, np.ndarray]:
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return columns * cosine + rows * sine, rows * cosine - columns * sine


def _index(position: np.ndarray, extent: int) -> np.ndarray:
    """Return indices into a table of `extent` entries, of pixels from the middle of the scene."""
    return np.clip((position + extent / 2).astype(np.int32), 0, extent - 1)


def _cuts(rng: np.random.Generator, rows: int, extent: int, mean: float) -> np.ndarray:
    """Cut lines into pieces of random length; return the piece at each place, (rows, extent)."""
    lengths = mean * rng.lognormal(-0.1, 0.45, (rows, int(2 * extent / mean) + 4))
    ends = np.cumsum(np.maximum(lengths, 4), axis=1) - rng.uniform(0, mean, (rows, 1))
    starts = np.zeros((rows, extent + 1), np.int32)
    row = np.broadcast_to(np.arange(rows)[:, None], ends.shape)
    starts[row, np.clip(ends, 0, extent).astype(np.int32)] = 1  # pieces beyond the end are cut off
    return np.cumsum(starts[:, :extent], axis=1, dtype=np.int32)


def draw_land_cover(
    rng: np.random.Generator, region: np.ndarray, count: int, landscape: Landscape
) -> np.ndarray:
    """Draw the class of every pixel of a scene without water.

    Args:
      rng: random numbers of the scene.
      region: (size, size) number of the parcel of every pixel.
      count: number of parcels.
      landscape: shares of the classes.

    Returns:
      (size, size) uint8.
    """
    size = len(region)
    names, weights = zip(*landscape.parcels.items(), strict=True)
    drawn = rng.choice([NUMBER[name] for name in names], count, p=np.array(weights))
    cover = drawn.astype(np.uint8)[region]
    forest = fractal_field(rng, size, FOREST_STEPS)
    # borders of forests follow parcels in part
    parcel_draws = rng.standard_normal(count, dtype=np.float32)[region]
    cover[upper_share(0.75 * forest + 0.66 * parcel_draws, rng.uniform(*landscape.forest))] = (
        NUMBER["Forest"]
    )
    if (urban := rng.uniform(*landscape.urban)) > 0.002:
        cover[upper_share(fractal_field(rng, size, URBAN_STEPS), urban)] = NUMBER["Urban"]
    return cover


def draw_wind(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw the mask of wind that roughens water, with lee areas: (size, size) bool."""
    return smooth_fields(rng, 1, size, WIND_STEP)[0] > rng.normal(0, 2.5)


def cover_with_water(cover: np.ndarray, water: np.ndarray, rough: np.ndarray) -> np.ndarray:
    """Return classes with calm water where `water`, and wind-roughened water where also `rough`."""
    calm, wind = NUMBER["Calm water"], NUMBER["Wind-roughened water"]
    return np.where(water, np.where(rough, np.uint8(wind), np.uint8(calm)), cover)


def upper_share(field: np.ndarray, share: float) -> np.ndarray:
    """Return the mask of the upper `share` of the values of a standard normal field."""
    return field > np.float32(ndtri(1 - share))


def distance_from_line(rng: np.random.Generator, size: int, bend: float) -> np.ndarray:
    """Draw a line bent by about `bend` pixels and return signed distances from it in pixels."""
    place = np.arange(size, dtype=np.float32) - size / 2
    across, _ = _rotate(place[:, None], place, rng.uniform(0, 2 * np.pi))
    offset = np.float32(rng.uniform(-0.4, 0.4) * size)
    return across + offset + np.float32(bend) * smooth_fields(rng, 1, size, 40)[0]


def draw_water(rng: np.random.Generator, size: int, landscape: Landscape) -> np.ndarray | None:
    """Draw the mask of a lake, a river or the sea, or return None for a scene without."""
    drawn = rng.random()
    lake, river, coast = np.cumsum(landscape.water)
    if drawn < lake:
        return upper_share(fractal_field(rng, size, SHORE_STEPS), rng.uniform(0.03, 0.4))
    if drawn < river:
        return np.abs(distance_from_line(rng, size, bend=12.0)) < 10 ** rng.uniform(0.0, 1.1)
    if drawn < coast:
        return (
            distance_from_line(rng, size, bend=0.0) + 14 * fractal_field(rng, size, SHORE_STEPS) > 0
        )
    return None
