"""Heights and water: rivers, lakes and coasts, the low ground around them, and how it floods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_builders.synthetic_s1.fields import fractal
from tfds_builders.synthetic_s1.land_cover import NUMBER
from tfds_builders.synthetic_s1.layout import SHORE_STEPS, line

WATER_SHARE = (0.04, 0.35)  # of a scene with a lake or a coast
RIVER_PIXELS = (0.4, 1.1)  # decimal logarithm of half the width
RIVER_BEND = 14.0
TRIBUTARIES = 0.4  # of rivers have one
VALLEY_PIXELS = (25.0, 80.0)  # from the shore to a height of 1
UNDULATION = (0.25, 0.6)  # deviation of heights besides
UNDULATION_STEPS = {40: 1.0, 14: 0.5, 6: 0.2}
PARCEL_STEP = 0.1  # deviation of heights between parcels: dykes, ditches and roads hold water back
LOW_SHARE = (0.35, 0.55)  # of the land is low ground
OTHERWISE = -0.3  # a field below it: part of the low ground that has another cover
BISECTIONS = 12


class Terrain(NamedTuple):
    """The lie of the land.

    Attributes:
      height: (size, size) float32, above the water, in no unit.
      water: (size, size) bool, where there is water without a flood.
      low: (size, size) bool, low ground.
    """

    height: np.ndarray
    water: np.ndarray
    low: np.ndarray


def terrain(rng: np.random.Generator, region: np.ndarray, count: int) -> Terrain:
    """Draws a river, a lake or a coast in its valley.

    Args:
      rng: where it comes from.
      region: number of the parcel of every pixel, (size, size).
      count: of parcels.
    """
    size = len(region)
    kinds = tuple(WATERS)
    kind = kinds[rng.choice(len(kinds), p=[share for share, _ in WATERS.values()])]
    distance = WATERS[kind][1](rng, size)
    water = distance < 0
    height = np.maximum(distance, 0) / np.float32(rng.uniform(*VALLEY_PIXELS))
    height += np.float32(rng.uniform(*UNDULATION)) * fractal(rng, size, UNDULATION_STEPS)[0]
    height += np.float32(PARCEL_STEP) * rng.standard_normal(count, dtype=np.float32)[region]
    low = height < np.quantile(height[~water], rng.uniform(*LOW_SHARE))
    return Terrain(height, water, low & ~water)


def floodplain(
    rng: np.random.Generator, cover: np.ndarray, low: np.ndarray, hard_case: str
) -> np.ndarray:
    """Gives the low ground the cover of a hard case; else it is free of woods and reeds."""
    field = fractal(rng, len(cover), SHORE_STEPS)[0] > OTHERWISE
    forest, wetland, grass = (NUMBER[name] for name in ("Forest", "Wetland", "Grassland"))
    if hard_case == "vegetation":
        return np.where(low, np.where(field, np.uint8(forest), np.uint8(wetland)), cover)
    cover = np.where(low & np.isin(cover, (forest, wetland)), np.uint8(grass), cover)
    if hard_case == "sand":
        cover = np.where(low & field, np.uint8(NUMBER["Smooth sand or asphalt"]), cover)
    return cover


def flood(ground: Terrain, share: float) -> np.ndarray:
    """Land that is flooded when the water rises: low enough, and connected to the water.

    Args:
      ground: height and water.
      share: of all pixels that is to be flooded; what is flooded at once where a basin fills lets
        it be missed by some.

    Returns:
      (size, size) bool, without the water that is there anyway.
    """
    levels = np.sort(ground.height[~ground.water])
    target = share * ground.water.size
    low, high = 0, len(levels) - 1  # below and above the level
    best, missed = ground.water, np.inf
    for _ in range(BISECTIONS):
        middle = (low + high) // 2
        reached = _reached(ground, levels[middle])
        count = int(reached.sum())
        error = abs(np.log(max(count, 0.5) / target))
        if error < missed:
            best, missed = reached, error
        low, high = (middle, high) if count < target else (low, middle)
    return best


def _reached(ground: Terrain, level: float) -> np.ndarray:
    """Land up to a level that is connected to the water, side by side."""
    parts, count = ndimage.label((ground.height <= level) | ground.water)
    wet = np.zeros(count + 1, bool)
    wet[parts[ground.water]] = True
    return wet[parts] & ~ground.water


def _river(rng: np.random.Generator, size: int) -> np.ndarray:
    width = 10 ** rng.uniform(*RIVER_PIXELS)
    distance = np.abs(line(rng, size, RIVER_BEND)) - np.float32(width)
    other = np.abs(line(rng, size, RIVER_BEND)) - np.float32(0.4 * width)
    return np.minimum(distance, other) if rng.random() < TRIBUTARIES else distance


def _lake(rng: np.random.Generator, size: int) -> np.ndarray:
    field = fractal(rng, size, SHORE_STEPS)[0] * np.float32(max(SHORE_STEPS))
    return field - np.float32(np.quantile(field, rng.uniform(*WATER_SHARE)))


def _coast(rng: np.random.Generator, size: int) -> np.ndarray:
    field = line(rng, size, bend=0.0) + 14 * fractal(rng, size, SHORE_STEPS)[0]
    return field - np.float32(np.quantile(field, rng.uniform(*WATER_SHARE)))


Shore = Callable[[np.random.Generator, int], np.ndarray]
"""Draws the distance from the shore in pixels, negative in the water: (size, size)."""

WATERS: dict[str, tuple[float, Shore]] = {
    "river": (0.55, _river),
    "lake": (0.25, _lake),
    "coast": (0.2, _coast),
}
"""Share of scenes, and the shore."""
