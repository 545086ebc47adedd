"""The ground: parcels, forest, water, settlements and roads, and the backscatter of each pixel.

Layers are painted one over the other. What has straight borders comes from a mosaic of parcels;
what has irregular ones from a random field cut at a level.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from tfds_builders.synthetic_s1.fields import fractal, smooth
from tfds_builders.synthetic_s1.land_cover import CLASSES, LANDSCAPES, Landscape
from tfds_builders.synthetic_s1.speckle import gamma_table, node

NAMES = tuple(CLASSES)
NUMBER = {name: number for number, name in enumerate(NAMES)}
REFERENCE_DEG = 38.0  # incidence at which the typical values hold
DEG_PER_PIXEL = 0.064 * 0.01  # 0.064 degrees per km of ground range, 10 m pixels
BAND_STD_DB = 0.6  # of a class between scenes, each band alone
TEXTURE_STEPS = {5: 0.8, 14: 0.6}  # pixels: correlated over 50 to 200 m
SHORE_STEPS = {36: 1.0, 13: 0.4, 4: 0.13}  # of lakes and coasts
FOREST_STEPS = {26: 1.0, 8: 0.5, 3: 0.25}
URBAN_STEPS = {22: 1.0, 5: 0.5}
RELIEF_STEPS = {40: 1.0, 14: 0.35, 7: 0.12}  # heights
RELIEF_STEP_GAIN = 20.0  # height differences of neighbours to about unit deviation
LINE_DB = (-7.0, 4.0)  # roads are dark, rails and rows of trees bright
LINE_PIXELS = 0.7
EDGE_DB = np.float32(2.0)  # woods face the radar at near range and throw a shadow at far range


class Ground(NamedTuple):
    """A scene before the instrument.

    Attributes:
      cover: class of every pixel, (size, size) uint8.
      power: linear backscatter with texture, without point targets, (2, size, size) float32.
    """

    cover: np.ndarray
    power: np.ndarray


def ground(rng: np.random.Generator, size: int, incidence: float) -> Ground:
    """Draws a scene seen under an incidence angle in degrees; near range is at column 0."""
    landscape = _pick(rng)
    region, count = _parcels(rng, size, landscape)
    cover = _cover(rng, region, count, landscape)
    decibel = _means(rng, cover, region, count, incidence)
    decibel += _shape(rng, cover, region, landscape)
    field = fractal(rng, size, TEXTURE_STEPS)[0]
    power = np.exp(decibel * np.float32(np.log(10) / 10))
    power *= _texture_tables()[cover, node(field)]
    return Ground(cover, power)


def _pick(rng: np.random.Generator) -> Landscape:
    landscapes = tuple(LANDSCAPES.values())
    shares = np.array([landscape.share for landscape in landscapes])
    return landscapes[rng.choice(len(landscapes), p=shares / shares.sum())]


def _parcels(rng: np.random.Generator, size: int, landscape: Landscape) -> tuple[np.ndarray, int]:
    """Fields in strips of a common orientation: the number of each pixel's, and how many."""
    place = np.arange(size, dtype=np.float32) - size / 2
    rows, columns = np.float32(landscape.warp) * smooth(rng, 2, size, 20)
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


def _index(place: np.ndarray, extent: int) -> np.ndarray:
    """Pixels from the middle of the scene to entries of a table."""
    return np.clip((place + extent / 2).astype(np.int32), 0, extent - 1)


def _cuts(rng: np.random.Generator, rows: int, extent: int, mean: float) -> np.ndarray:
    """Cuts lines into pieces of random length: the piece at each place, (rows, extent)."""
    lengths = mean * rng.lognormal(-0.1, 0.45, (rows, int(2 * extent / mean) + 4))
    ends = np.cumsum(np.maximum(lengths, 4), axis=1) - rng.uniform(0, mean, (rows, 1))
    starts = np.zeros((rows, extent + 1), np.int32)
    row = np.broadcast_to(np.arange(rows)[:, None], ends.shape)
    starts[row, np.clip(ends, 0, extent).astype(np.int32)] = 1  # what is past the end is cut off
    return np.cumsum(starts[:, :extent], axis=1, dtype=np.int32)


def _cover(
    rng: np.random.Generator, region: np.ndarray, count: int, landscape: Landscape
) -> np.ndarray:
    """Class of every pixel."""
    size = len(region)
    names, weights = zip(*landscape.parcels.items(), strict=True)
    drawn = rng.choice([NUMBER[name] for name in names], count, p=np.array(weights))
    cover = drawn.astype(np.uint8)[region]
    woods = fractal(rng, size, FOREST_STEPS)[0]
    own = rng.standard_normal(count, dtype=np.float32)[region]  # borders follow parcels in part
    cover[_above(0.75 * woods + 0.66 * own, rng.uniform(*landscape.forest))] = NUMBER["Forest"]
    if (urban := rng.uniform(*landscape.urban)) > 0.002:
        cover[_above(fractal(rng, size, URBAN_STEPS)[0], urban)] = NUMBER["Urban"]
    water = _water(rng, size, landscape)
    if water is not None:
        rough = smooth(rng, 1, size, 30)[0] > rng.normal(0, 2.5)  # shores shelter from the wind
        calm, wind = NUMBER["Calm water"], NUMBER["Wind-roughened water"]
        cover = np.where(water, np.where(rough, np.uint8(wind), np.uint8(calm)), cover)
    return cover


def _above(field: np.ndarray, share: float) -> np.ndarray:
    """Where a standard normal field is in its upper `share`."""
    return field > np.float32(ndtri(1 - share))


def _line(rng: np.random.Generator, size: int, bend: float) -> np.ndarray:
    """Signed distance from a line through the scene that bends by about `bend` pixels."""
    place = np.arange(size, dtype=np.float32) - size / 2
    across, _ = _rotate(place[:, None], place, rng.uniform(0, 2 * np.pi))
    offset = np.float32(rng.uniform(-0.4, 0.4) * size)
    return across + offset + np.float32(bend) * smooth(rng, 1, size, 40)[0]


def _water(rng: np.random.Generator, size: int, landscape: Landscape) -> np.ndarray | None:
    """Where there is water: a lake, a river, the sea, or None."""
    drawn = rng.random()
    lake, river, coast = np.cumsum(landscape.water)
    if drawn < lake:
        return _above(fractal(rng, size, SHORE_STEPS)[0], rng.uniform(0.03, 0.4))
    if drawn < river:
        return np.abs(_line(rng, size, bend=12.0)) < 10 ** rng.uniform(0.0, 1.1)
    if drawn < coast:
        return _line(rng, size, bend=0.0) + 14 * fractal(rng, size, SHORE_STEPS)[0] > 0
    return None


def _means(
    rng: np.random.Generator, cover: np.ndarray, region: np.ndarray, count: int, incidence: float
) -> np.ndarray:
    """Mean backscatter of the class, the scene, the region and the incidence: (2, n, n) dB."""
    covers = CLASSES.values()
    typical = np.array([(cover.vh, cover.vv) for cover in covers]).T
    slope = np.array([(cover.slope_vh, cover.slope_vv) for cover in covers]).T
    scene = rng.normal(0, [cover.scene_std for cover in covers])
    scene = scene + rng.normal(0, BAND_STD_DB, typical.shape)
    mean = typical + scene + slope * (incidence - REFERENCE_DEG)  # band, class
    own = rng.normal(0, 1, count) + 0.3 * rng.normal(0, 1, (2, count))
    spread = np.array([cover.region_std for cover in covers])
    table = (mean[:, :, None] + spread[:, None] * own[:, None, :]).astype(np.float32)
    decibel = table.reshape(2, -1).take(cover.astype(np.int32) * np.int32(count) + region, axis=1)
    degrees = DEG_PER_PIXEL * (np.arange(len(cover)) - len(cover) / 2)
    return decibel + slope.astype(np.float32).take(cover, axis=1) * degrees.astype(np.float32)


def _shape(
    rng: np.random.Generator, cover: np.ndarray, region: np.ndarray, landscape: Landscape
) -> np.ndarray:
    """What slopes, hedges, edges of woods, roads and rails add in both bands, dB."""
    size = len(cover)
    height = fractal(rng, size + 1, RELIEF_STEPS)[0]
    slopes = (height[:-1, 1:] - height[:-1, :-1]) * np.float32(RELIEF_STEP_GAIN)
    gain = slopes * np.float32(rng.uniform(0, landscape.relief))
    hedge = np.float32(rng.uniform(0, landscape.hedges))
    border = np.zeros((size, size), bool)
    border[:, 1:] = region[:, 1:] != region[:, :-1]
    border[1:] |= region[1:] != region[:-1]
    gain += hedge * (border & (region % 3 > 0))  # some parcels have none
    wood = (cover == NUMBER["Forest"]).astype(np.int8)
    gain[:, 1:] += EDGE_DB * (wood[:, 1:] - wood[:, :-1])
    for _ in range(rng.integers(3)):
        distance = _line(rng, size, bend=4.0)
        gain[np.abs(distance) < LINE_PIXELS] += np.float32(rng.uniform(*LINE_DB))
    return gain * np.array([cover.relief for cover in CLASSES.values()]).take(cover)


@cache
def _texture_tables() -> np.ndarray:
    """Gamma quantiles of the texture of each class: (class, node)."""
    return np.stack([gamma_table(cover.texture) for cover in CLASSES.values()])
