"""What the radar gets back of every pixel of a ground, before the instrument."""

from functools import cache
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.synthetic_s1 import layout
from tfds_builders.synthetic_s1.fields import fractal
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER, Landscape
from tfds_builders.synthetic_s1.layout import line
from tfds_builders.synthetic_s1.speckle import gamma_table, node

REFERENCE_DEG = 38.0  # incidence at which the typical values hold
DEG_PER_PIXEL = 0.064 * 0.01  # 0.064 degrees per km of ground range, 10 m pixels
BAND_STD_DB = 0.6  # of a class between scenes, each band alone
TEXTURE_STEPS = {5: 0.8, 14: 0.6}  # pixels: correlated over 50 to 200 m
RELIEF_STEPS = {40: 1.0, 14: 0.35, 7: 0.12}  # heights
RELIEF_STEP_GAIN = 20.0  # height differences of neighbours to about unit deviation
LINE_DB = (-7.0, 4.0)  # roads are dark, rails and rows of trees bright
LINE_PIXELS = 0.7
EDGE_DB = np.float32(2.0)  # woods face the radar at near range and throw a shadow at far range


def means(
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


def shape(
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
        distance = line(rng, size, bend=4.0)
        gain[np.abs(distance) < LINE_PIXELS] += np.float32(rng.uniform(*LINE_DB))
    return gain * np.array([cover.relief for cover in CLASSES.values()]).take(cover)


def power(decibel: np.ndarray, cover: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Linear power with the texture of each class.

    Args:
      decibel: (2, size, size).
      cover: class of every pixel.
      texture: a standard normal field, shared by the bands.
    """
    linear = np.exp(decibel * np.float32(np.log(10) / 10))
    linear *= texture_tables()[cover, node(texture)]
    return linear


@cache
def texture_tables() -> np.ndarray:
    """Gamma quantiles of the texture of each class: (class, node)."""
    return np.stack([gamma_table(cover.texture) for cover in CLASSES.values()])


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
    landscape = layout.pick(rng)
    region, count = layout.parcels(rng, size, landscape)
    cover = layout.land(rng, region, count, landscape)
    water = layout.water_body(rng, size, landscape)
    if water is not None:
        cover = layout.flood(cover, water, layout.roughened(rng, size))
    decibel = means(rng, cover, region, count, incidence)
    decibel += shape(rng, cover, region, landscape)
    texture = fractal(rng, size, TEXTURE_STEPS)[0]
    return Ground(cover, power(decibel, cover, texture))


LEVEL_DB = (-4.0, 20.0)  # in VV over a resolution cell; weak ones are more frequent
VH_DB = (-13.0, -4.0)  # in VH against VV
REACH = 3  # pixels around a target on which its response is computed
RESOLUTION = 1.5  # pixels: peak to first zero of the response, before resampling


def point_targets(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Draws targets by the density of each class, somewhere inside their pixels.

    Args:
      rng: where they come from.
      cover: class of every pixel, (size, size).

    Returns:
      (2, size, size) float32 linear power, each target spread by the response of the instrument.
    """
    size = len(cover)
    density = np.array([cover.targets for cover in CLASSES.values()], np.float32)
    hit = np.flatnonzero(rng.random(cover.shape, np.float32) < density.take(cover))
    vv = LEVEL_DB[0] + (LEVEL_DB[1] - LEVEL_DB[0]) * rng.random(len(hit)) ** 2
    power = db_to_linear(np.stack([vv + rng.uniform(*VH_DB, len(hit)), vv]))
    near = np.arange(-REACH, REACH + 1)
    inside = rng.uniform(-0.5, 0.5, (2, len(hit), 1))  # row and column within the pixel
    rows, columns = np.sinc((near - inside) / RESOLUTION) ** 2  # (target, pixel)
    response = rows[:, :, None] * columns[:, None, :]
    width = size + 2 * REACH
    corner = hit // size * width + hit % size
    place = corner[:, None, None] + (near + REACH)[:, None] * width + near + REACH
    images = [
        np.bincount(place.ravel(), (band[:, None, None] * response).ravel(), width**2)
        for band in power
    ]
    inner = np.stack(images).reshape(2, width, width)[:, REACH:-REACH, REACH:-REACH]
    return inner.astype(np.float32)
