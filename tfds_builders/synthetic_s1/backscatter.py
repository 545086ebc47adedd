"""Backscatter of a simulated scene before the instrument: classes, structure, targets."""

from functools import cache
from typing import NamedTuple

import numpy as np

from sar_mixmae_jax.utils.decibel import db_to_linear
from tfds_builders.synthetic_s1 import land_cover
from tfds_builders.synthetic_s1.fields import fractal_field
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER, Landscape, distance_from_line
from tfds_builders.synthetic_s1.speckle import gamma_table, table_index

REFERENCE_DEG = 38.0  # incidence at which the typical values hold
DEG_PER_PIXEL = 0.064 * 0.01  # 0.064 degrees per km of ground range, 10 m pixels
BAND_STD_DB = 0.6  # of a class between scenes, each band alone
TEXTURE_STEPS = {5: 0.8, 14: 0.6}  # pixels: correlated over 50 to 200 m
RELIEF_STEPS = {40: 1.0, 14: 0.35, 7: 0.12}  # heights
RELIEF_STEP_GAIN = 20.0  # scales slopes to about unit std
LINE_DB = (-7.0, 4.0)  # roads are dark, rails and rows of trees bright
LINE_PIXELS = 0.7
EDGE_DB = np.float32(2.0)  # layover at near range, shadow at far range


def mean_backscatter(
    rng: np.random.Generator,
    cover: np.ndarray,
    region: np.ndarray,
    count: int,
    incidence: float,
    co_pol: str = "VV",
) -> np.ndarray:
    """Return the mean backscatter of class, scene, region and incidence.

    Args:
      rng: random numbers of the scene.
      cover: (size, size) class of every pixel.
      region: (size, size) number of the parcel of every pixel.
      count: number of parcels.
      incidence: angle at the centre, degrees.
      co_pol: second band, "VV" or "HH"; the cross-polarised band and all that is drawn are the
        same for both.

    Returns:
      (2, size, size) float32 dB, the cross-polarised and the co-polarised band.
    """
    covers = CLASSES.values()
    typical = np.array([(cover.vh, cover.vv) for cover in covers]).T
    slope = np.array([(cover.slope_vh, cover.slope_vv) for cover in covers]).T
    if co_pol == "HH":
        typical[1] += [cover.hh for cover in covers]
        slope[1] += [cover.slope_hh for cover in covers]
    scene = rng.normal(0, [cover.scene_std for cover in covers])
    scene = scene + rng.normal(0, BAND_STD_DB, typical.shape)
    mean = typical + scene + slope * (incidence - REFERENCE_DEG)  # band, class
    parcel_draws = rng.normal(0, 1, count) + 0.3 * rng.normal(0, 1, (2, count))
    spread = np.array([cover.region_std for cover in covers])
    table = (mean[:, :, None] + spread[:, None] * parcel_draws[:, None, :]).astype(np.float32)
    decibel = table.reshape(2, -1).take(cover.astype(np.int32) * np.int32(count) + region, axis=1)
    degrees = DEG_PER_PIXEL * (np.arange(len(cover)) - len(cover) / 2)
    return decibel + slope.astype(np.float32).take(cover, axis=1) * degrees.astype(np.float32)


def structure_gain(
    rng: np.random.Generator, cover: np.ndarray, region: np.ndarray, landscape: Landscape
) -> np.ndarray:
    """Return the gain of slopes, hedges, forest edges, roads and rails.

    Args:
      rng: random numbers of the scene.
      cover: (size, size) class of every pixel.
      region: (size, size) number of the parcel of every pixel.
      landscape: ranges of relief and hedges.

    Returns:
      (size, size) dB, equal in both bands.
    """
    size = len(cover)
    height = fractal_field(rng, size + 1, RELIEF_STEPS)
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
        distance = distance_from_line(rng, size, bend=4.0)
        gain[np.abs(distance) < LINE_PIXELS] += np.float32(rng.uniform(*LINE_DB))
    return gain * np.array([cover.relief for cover in CLASSES.values()]).take(cover)


def textured_power(decibel: np.ndarray, cover: np.ndarray, texture: np.ndarray) -> np.ndarray:
    """Return linear power with the texture of each class.

    Args:
      decibel: (2, size, size) mean backscatter, dB.
      cover: (size, size) class of every pixel.
      texture: (size, size) standard normal field, shared by the bands.
    """
    linear = np.exp(decibel * np.float32(np.log(10) / 10))
    linear *= texture_tables()[cover, table_index(texture)]
    return linear


@cache
def texture_tables() -> np.ndarray:
    """Return gamma quantiles of the texture of each class: (class, node)."""
    return np.stack([gamma_table(cover.texture) for cover in CLASSES.values()])


class Ground(NamedTuple):
    """A scene before the instrument.

    Attributes:
      cover: (size, size) uint8 class of every pixel.
      power: (2, size, size) float32 linear backscatter with texture, without point targets.
    """

    cover: np.ndarray
    power: np.ndarray


def draw_ground(
    rng: np.random.Generator, size: int, incidence: float, co_pol: str = "VV"
) -> Ground:
    """Draw a scene; near range is at column 0.

    Args:
      rng: random numbers of the scene.
      size: side in pixels.
      incidence: angle at the centre, degrees.
      co_pol: see `mean_backscatter`.
    """
    landscape = land_cover.draw_landscape(rng)
    region, count = land_cover.draw_parcels(rng, size, landscape)
    cover = land_cover.draw_land_cover(rng, region, count, landscape)
    water = land_cover.draw_water(rng, size, landscape)
    if water is not None:
        cover = land_cover.cover_with_water(cover, water, land_cover.draw_wind(rng, size))
    decibel = mean_backscatter(rng, cover, region, count, incidence, co_pol)
    decibel += structure_gain(rng, cover, region, landscape)
    texture = fractal_field(rng, size, TEXTURE_STEPS)
    return Ground(cover, textured_power(decibel, cover, texture))


LEVEL_DB = (-4.0, 20.0)  # in VV and HH, over a resolution cell; weak ones are more frequent
VH_DB = (-13.0, -4.0)  # cross-polarised against co-polarised
REACH = 3  # pixels around a target on which its response is computed
RESOLUTION = 1.5  # pixels: peak to first zero of the response, before resampling


def point_targets(rng: np.random.Generator, cover: np.ndarray) -> np.ndarray:
    """Draw point targets by the density of each class, at random positions inside pixels.

    Args:
      rng: random numbers of the targets.
      cover: (size, size) class of every pixel.

    Returns:
      (2, size, size) float32 linear power, each target spread by the impulse response.
    """
    size = len(cover)
    density = np.array([cover.targets for cover in CLASSES.values()], np.float32)
    hit = np.flatnonzero(rng.random(cover.shape, np.float32) < density.take(cover))
    vv = LEVEL_DB[0] + (LEVEL_DB[1] - LEVEL_DB[0]) * rng.random(len(hit)) ** 2
    power = db_to_linear(np.stack([vv + rng.uniform(*VH_DB, len(hit)), vv]))
    offsets = np.arange(-REACH, REACH + 1)
    subpixel = rng.uniform(-0.5, 0.5, (2, len(hit), 1))  # row and column within the pixel
    rows, columns = np.sinc((offsets - subpixel) / RESOLUTION) ** 2  # (target, pixel)
    response = rows[:, :, None] * columns[:, None, :]
    width = size + 2 * REACH
    corner = hit // size * width + hit % size
    place = corner[:, None, None] + (offsets + REACH)[:, None] * width + offsets + REACH
    images = [
        np.bincount(place.ravel(), (band[:, None, None] * response).ravel(), width**2)
        for band in power
    ]
    cropped = np.stack(images).reshape(2, width, width)[:, REACH:-REACH, REACH:-REACH]
    return cropped.astype(np.float32)
