"""Simulates one date of a pair: the same scene and instrument, its own weather and speckle.

What both dates share is drawn from streams of random numbers of the pair, each for one purpose;
what each has for itself from a stream of the date. Reading a date needs no other, and its flood or
its fields do not move a texture, a hedge or a house.
"""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from tfds_builders.flood_pairs import season
from tfds_builders.flood_pairs.cases import Case, Weather, weather
from tfds_builders.flood_pairs.terrain import Terrain, flood, floodplain, terrain
from tfds_builders.synthetic_s1 import backscatter, layout
from tfds_builders.synthetic_s1.fields import fractal
from tfds_builders.synthetic_s1.land_cover import NUMBER, Landscape
from tfds_builders.synthetic_s1.simulator import INCIDENCE_DEG, Patch, decibel
from tfds_builders.synthetic_s1.speckle import LOOKS, MARGIN, noise, observe, speckle
from tfds_builders.synthetic_s1.targets import point_targets

DATES = ("before", "after")
STREAMS = (
    *DATES,
    "weather",
    "layout",
    "terrain",
    "classes",
    "shape",
    "texture",
    "targets",
    "instrument",
)
"""Names of the streams; the place of a name is the spawn key of NumPy's `SeedSequence`."""

Streams = dict[str, np.random.Generator]


class Image(NamedTuple):
    """One date of a pair.

    Attributes:
      patch: what is seen, and the truth; the cover under flooded woods, reeds and houses stays.
      water: (size, size) bool, where there is water, also under what stands in it.
      flooded_fraction: share of the pixels that have water and had none at the first date.
      day: of the acquisition.
    """

    patch: Patch
    water: np.ndarray
    flooded_fraction: float
    day: date


class Scene(NamedTuple):
    """What both dates share.

    Attributes:
      cover: class of every pixel of the land, (size, size) uint8.
      region: number of the parcel of every pixel.
      parcels: how many.
      ground: heights, and water without a flood.
      landscape: what it is made of.
      incidence: degrees.
    """

    cover: np.ndarray
    region: np.ndarray
    parcels: int
    ground: Terrain
    landscape: Landscape
    incidence: float


def simulate(size: int, seed: tuple[int, ...], case: Case, name: str) -> Image:
    """Simulates a date; the same arguments give the same image, bitwise.

    Args:
      size: side in pixels.
      seed: of the pair.
      case: of the pair.
      name: "before" or "after".
    """
    rng, after = streams(seed), name == "after"
    happened = weather(rng["weather"], case)
    scene = _scene(rng, size + 2 * MARGIN, case.hard_case)
    water = scene.ground.water
    new = flood(scene.ground, happened.flood_share) if case.flooded and after else water & False
    cover, power = _look(rng, scene, new, happened, after)
    seen, truth = _observe(rng, scene, power, rng[name])
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    cover, water, new = cover[inner], (water | new)[inner], new[inner]
    if rng["instrument"].integers(2):  # the radar looks east or west
        seen, truth, cover, water = (values[..., ::-1] for values in (seen, truth, cover, water))
    patch = Patch(decibel(seen), decibel(truth), np.ascontiguousarray(cover), scene.incidence)
    day = happened.day + timedelta(days=happened.gap_days * after)
    return Image(patch, np.ascontiguousarray(water), float(new.mean()), day)


def streams(seed: tuple[int, ...]) -> Streams:
    """The streams of a pair by name, independent of each other."""
    return {
        name: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        for number, name in enumerate(STREAMS)
    }


def _scene(rng: Streams, size: int, hard_case: str) -> Scene:
    incidence = float(rng["layout"].uniform(*INCIDENCE_DEG))
    landscape = layout.pick(rng["layout"])
    region, count = layout.parcels(rng["layout"], size, landscape)
    cover = layout.land(rng["layout"], region, count, landscape)
    ground = terrain(rng["terrain"], region, count)
    cover = floodplain(rng["terrain"], cover, ground.low, hard_case)
    return Scene(cover, region, count, ground, landscape, incidence)


def _look(
    rng: Streams, scene: Scene, new: np.ndarray, happened: Weather, after: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The cover at a date, `new` of it flooded, and the linear power of every pixel."""
    own = rng[DATES[after]]
    cover, gain = season.fields(own, scene.cover, scene.region, scene.parcels)
    if not happened.snow[after]:
        cover = season.thaw(cover)
    shift = season.class_shift(own, happened, after)
    rough = season.rough_water(own, len(cover), happened.windy[after])
    standing = np.isin(cover, [NUMBER[name] for name in happened.bounce_db])
    wet = scene.ground.water | new
    cover = layout.flood(cover, scene.ground.water | (new & ~standing), rough)
    level = backscatter.means(rng["classes"], cover, scene.region, scene.parcels, scene.incidence)
    level += backscatter.shape(rng["shape"], cover, scene.region, scene.landscape)
    level += shift.take(cover, axis=1) + gain * ~wet
    for name, bounce in happened.bounce_db.items():
        level[:, new & (cover == NUMBER[name])] += np.array(bounce, np.float32)[:, None]
    texture = fractal(rng["texture"], len(cover), backscatter.TEXTURE_STEPS)[0]
    return cover, backscatter.power(level, cover, texture)


def _observe(
    rng: Streams, scene: Scene, power: np.ndarray, own: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """What the instrument sees of the power on a date, and the truth: (2, size, size) linear."""
    still = np.uint8(NUMBER["Calm water"])
    ground = np.where(scene.ground.water, still, scene.cover)[1:-1, 1:-1]
    targets = point_targets(rng["targets"], ground)
    targets += point_targets(own, np.full_like(ground, still))  # ships and vehicles: they move
    size, instrument = len(ground), rng["instrument"]
    looks, floor = LOOKS[instrument.integers(len(LOOKS))], noise(instrument, size)
    return observe(power, targets, floor, speckle(own, size, looks))
