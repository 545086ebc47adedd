"""What differs between dates besides the flood: seasons, fields, snow, rain and wind."""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

from tfds_builders.flood_pairs.cases import Case, Weather, weather
from tfds_builders.flood_pairs.terrain import Terrain, flood, floodplain, terrain
from tfds_builders.synthetic_s1 import backscatter, layout
from tfds_builders.synthetic_s1.backscatter import point_targets
from tfds_builders.synthetic_s1.fields import fractal, smooth
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER, Landscape
from tfds_builders.synthetic_s1.layout import WIND_STEP
from tfds_builders.synthetic_s1.simulator import INCIDENCE_DEG, Patch, decibel
from tfds_builders.synthetic_s1.speckle import LOOKS, MARGIN, noise, observe, speckle

SEASON_DB = 0.6  # deviation of a class on a date, both bands together
BAND_DB = 0.25  # each band alone
STEADY = {"Urban": 0.3}  # share of it
PARCEL_DB = 0.6  # deviation of a field on a date
SWITCHED = 0.15  # of the fields on a date: sown or harvested
SMOOTH = 0.05  # of the fields on a date: rolled after the harvest
SMOOTH_DB = (-5.0, -2.0)
WIND_DB = (0.0, 4.0)  # the stronger the wind, the brighter
BREEZE = (1.2, 2.5)  # level of the field that decides between calm and roughened water

FIELDS = ("Crops", "Bare soil", "Wet soil", "Grassland")
OPEN = (*FIELDS, "Smooth sand or asphalt")


def rough_water(rng: np.random.Generator, size: int, windy: bool) -> np.ndarray:
    """Where the wind roughens water on a date, all but a rest or only there: (size, size)."""
    level = rng.uniform(*BREEZE)
    return smooth(rng, 1, size, WIND_STEP)[0] > (-level if windy else level)


def class_shift(rng: np.random.Generator, weather: Weather, after: bool) -> np.ndarray:
    """What a date adds to every class: (2, class) float32 dB."""
    names = tuple(CLASSES)
    shift = SEASON_DB * rng.standard_normal(len(names))
    shift = shift + BAND_DB * rng.standard_normal((2, len(names)))
    shift *= [STEADY.get(name, 1.0) for name in names]
    wind = rng.uniform(*WIND_DB)
    if weather.windy[after]:
        shift[:, NUMBER["Wind-roughened water"]] += wind
    if after:
        shift[:, [NUMBER[name] for name in OPEN]] += weather.soil_db
        shift[:, NUMBER["Forest"]] += weather.woods_db
        shift[:, NUMBER["Smooth sand or asphalt"]] += weather.sand_db
    return shift.astype(np.float32)


def fields(
    rng: np.random.Generator, cover: np.ndarray, region: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The fields on a date.

    Args:
      rng: of the date.
      cover: class of every pixel, (size, size).
      region: number of the parcel of every pixel.
      count: of parcels.

    Returns:
      The cover, some fields sown and some harvested; what is added to both bands, dB.
    """
    switched, rolled = rng.random((2, count)) < np.array([[SWITCHED], [SMOOTH]])
    other = np.arange(len(CLASSES), dtype=np.uint8)
    crops, bare = NUMBER["Crops"], NUMBER["Bare soil"]
    other[[crops, bare]] = bare, crops
    gain = rng.normal(0, PARCEL_DB, count) + rng.uniform(*SMOOTH_DB, count) * rolled
    field = np.isin(np.arange(len(CLASSES)), [NUMBER[name] for name in FIELDS])
    changed = np.where(switched[region], other[cover], cover)
    return changed, gain.astype(np.float32)[region] * field[cover]


def thaw(cover: np.ndarray) -> np.ndarray:
    """The cover without snow and frost: grass."""
    return np.where(cover == NUMBER["Snow or frozen ground"], np.uint8(NUMBER["Grassland"]), cover)


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


def simulate_date(size: int, seed: tuple[int, ...], case: Case, name: str) -> Image:
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
    cover, gain = fields(own, scene.cover, scene.region, scene.parcels)
    if not happened.snow[after]:
        cover = thaw(cover)
    shift = class_shift(own, happened, after)
    rough = rough_water(own, len(cover), happened.windy[after])
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
