"""Heights and water of a scene: rivers, lakes and coasts, low ground, and floods."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from tfds_builders.synthetic_s1.fields import fractal_field
from tfds_builders.synthetic_s1.land_cover import NUMBER, SHORE_STEPS, distance_from_line

WATER_SHARE = (0.04, 0.35)  # of a scene with a lake or a coast
RIVER_PIXELS = (0.4, 1.1)  # decimal logarithm of half the width
RIVER_BEND = 14.0
TRIBUTARIES = 0.4  # share of rivers with a tributary
VALLEY_PIXELS = (25.0, 80.0)  # from the shore to a height of 1
UNDULATION = (0.25, 0.6)  # std of the heights besides
UNDULATION_STEPS = {40: 1.0, 14: 0.5, 6: 0.2}
PARCEL_STEP = 0.1  # std of the heights between parcels: dykes, ditches and roads
LOW_SHARE = (0.35, 0.55)  # of the land is low ground
PATCH_LEVEL = -0.3  # threshold of the field: the low ground below it has another cover
BISECTIONS = 12


class Terrain(NamedTuple):
    """Heights and permanent water.

    Attributes:
      height: (size, size) float32 above the water, in arbitrary units.
      water: (size, size) bool, water without a flood.
      low: (size, size) bool, low ground.
    """

    height: np.ndarray
    water: np.ndarray
    low: np.ndarray


def draw_terrain(rng: np.random.Generator, region: np.ndarray, count: int) -> Terrain:
    """Draw a river, a lake or a coast in its valley.

    Args:
      rng: random numbers of the terrain.
      region: (size, size) number of the parcel of every pixel.
      count: number of parcels.
    """
    size = len(region)
    kinds = tuple(WATERS)
    kind = kinds[rng.choice(len(kinds), p=[share for share, _ in WATERS.values()])]
    distance = WATERS[kind][1](rng, size)
    water = distance < 0
    height = np.maximum(distance, 0) / np.float32(rng.uniform(*VALLEY_PIXELS))
    height += np.float32(rng.uniform(*UNDULATION)) * fractal_field(rng, size, UNDULATION_STEPS)
    height += np.float32(PARCEL_STEP) * rng.standard_normal(count, dtype=np.float32)[region]
    low = height < np.quantile(height[~water], rng.uniform(*LOW_SHARE))
    return Terrain(height, water, low & ~water)


def cover_low_ground(
    rng: np.random.Generator, cover: np.ndarray, low: np.ndarray, hard_case: str
) -> np.ndarray:
    """Return the cover with the low ground of a hard case.

    In the other cases the low ground has no forest and no wetland.

    Args:
      rng: random numbers of the terrain.
      cover: (size, size) class of every pixel.
      low: (size, size) bool, low ground.
      hard_case: one of `cases.CYCLE`.
    """
    patches = fractal_field(rng, len(cover), SHORE_STEPS) > PATCH_LEVEL
    forest, wetland, grass = (NUMBER[name] for name in ("Forest", "Wetland", "Grassland"))
    if hard_case == "vegetation":
        return np.where(low, np.where(patches, np.uint8(forest), np.uint8(wetland)), cover)
    cover = np.where(low & np.isin(cover, (forest, wetland)), np.uint8(grass), cover)
    if hard_case == "sand":
        cover = np.where(low & patches, np.uint8(NUMBER["Smooth sand or asphalt"]), cover)
    return cover


def flood_land(ground: Terrain, share: float) -> np.ndarray:
    """Return the land that rising water floods: low enough, and connected to the water.

    Args:
      ground: heights and water.
      share: share of all pixels to be flooded; the level closest to it is taken, since a basin that
        fills at once may exceed it.

    Returns:
      (size, size) bool, without the permanent water.
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
    """Return the land up to a level that is 4-connected to the water."""
    parts, count = ndimage.label((ground.height <= level) | ground.water)
    wet = np.zeros(count + 1, bool)
    wet[parts[ground.water]] = True
    return wet[parts] & ~ground.water


def _river(rng: np.random.Generator, size: int) -> np.ndarray:
    width = 10 ** rng.uniform(*RIVER_PIXELS)
    distance = np.abs(distance_from_line(rng, size, RIVER_BEND)) - np.float32(width)
    tributary = np.abs(distance_from_line(rng, size, RIVER_BEND)) - np.float32(0.4 * width)
    return np.minimum(distance, tributary) if rng.random() < TRIBUTARIES else distance


def _lake(rng: np.random.Generator, size: int) -> np.ndarray:
    field = fractal_field(rng, size, SHORE_STEPS) * np.float32(max(SHORE_STEPS))
    return field - np.float32(np.quantile(field, rng.uniform(*WATER_SHARE)))


def _coast(rng: np.random.Generator, size: int) -> np.ndarray:
    field = distance_from_line(rng, size, bend=0.0) + 14 * fractal_field(rng, size, SHORE_STEPS)
    return field - np.float32(np.quantile(field, rng.uniform(*WATER_SHARE)))


Shore = Callable[[np.random.Generator, int], np.ndarray]
"""Function that draws the (size, size) distance from the shore in pixels, negative in water."""

WATERS: dict[str, tuple[float, Shore]] = {
    "river": (0.55, _river),
    "lake": (0.25, _lake),
    "coast": (0.2, _coast),
}
"""Share of the scenes, and shore, by kind of water."""
