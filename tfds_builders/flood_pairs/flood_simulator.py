"""Images of both dates of a pair: flood, phenology, fields, snow, rain and wind."""

from datetime import date, timedelta
from typing import Any, NamedTuple

import numpy as np

from tfds_builders import records
from tfds_builders.flood_pairs.cases import Case, Weather, case_of, draw_weather
from tfds_builders.flood_pairs.terrain import Terrain, cover_low_ground, draw_terrain, flood_land
from tfds_builders.plan import Columns, Pairs
from tfds_builders.shards import Example
from tfds_builders.synthetic_s1 import backscatter, land_cover
from tfds_builders.synthetic_s1.backscatter import point_targets
from tfds_builders.synthetic_s1.fields import fractal_field, smooth_fields
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER, WIND_STEP, Landscape
from tfds_builders.synthetic_s1.simulator import INCIDENCE_DEG, SPLITS, Patch, labels, stack_db
from tfds_builders.synthetic_s1.speckle import LOOKS, MARGIN, noise_floor, observe, speckle

PHENOLOGY_DB = 0.6  # std of a class between dates, both bands together
BAND_DB = 0.25  # each band alone
STEADY = {"Urban": 0.3}  # factor on both
PARCEL_DB = 0.6  # std of a field between dates
SWITCHED = 0.15  # of the fields on a date: sown or harvested
SMOOTH = 0.05  # of the fields on a date: rolled after the harvest
SMOOTH_DB = (-5.0, -2.0)
WIND_DB = (0.0, 4.0)  # gain of roughened water
BREEZE = (1.2, 2.5)  # threshold between calm and roughened water

FIELDS = ("Crops", "Bare soil", "Wet soil", "Grassland")
OPEN = (*FIELDS, "Smooth sand or asphalt")


def rough_water(rng: np.random.Generator, size: int, windy: bool) -> np.ndarray:
    """Draw the mask of wind-roughened water on a date: most of it or little, (size, size)."""
    level = rng.uniform(*BREEZE)
    return smooth_fields(rng, 1, size, WIND_STEP)[0] > (-level if windy else level)


def class_shift(rng: np.random.Generator, weather: Weather, after: bool) -> np.ndarray:
    """Draw the change of every class on a date by phenology, weather and wind.

    Returns:
      (2, class) float32 dB.
    """
    names = tuple(CLASSES)
    shift = PHENOLOGY_DB * rng.standard_normal(len(names))
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


def change_fields(
    rng: np.random.Generator, cover: np.ndarray, region: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the state of the fields on a date.

    Args:
      rng: random numbers of the date.
      cover: (size, size) class of every pixel.
      region: (size, size) number of the parcel of every pixel.
      count: number of parcels.

    Returns:
      The cover with some fields sown and some harvested, and a gain of both bands in dB.
    """
    switched, smooth = rng.random((2, count)) < np.array([[SWITCHED], [SMOOTH]])
    swapped = np.arange(len(CLASSES), dtype=np.uint8)
    crops, bare = NUMBER["Crops"], NUMBER["Bare soil"]
    swapped[[crops, bare]] = bare, crops
    gain = rng.normal(0, PARCEL_DB, count) + rng.uniform(*SMOOTH_DB, count) * smooth
    is_field = np.isin(np.arange(len(CLASSES)), [NUMBER[name] for name in FIELDS])
    changed = np.where(switched[region], swapped[cover], cover)
    return changed, gain.astype(np.float32)[region] * is_field[cover]


def melt_snow(cover: np.ndarray) -> np.ndarray:
    """Return the cover with grassland in place of snow and frozen ground."""
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
"""Random streams; the position of a name is its spawn key in NumPy's `SeedSequence`."""

Streams = dict[str, np.random.Generator]


class Image(NamedTuple):
    """One date of a pair.

    Attributes:
      patch: measurement and truth; the cover under flooded vegetation and buildings stays.
      water: (size, size) bool, water, also under vegetation and buildings.
      flooded_fraction: share of the pixels with water that have none at the first date.
      day: of the acquisition.
    """

    patch: Patch
    water: np.ndarray
    flooded_fraction: float
    day: date


class Scene(NamedTuple):
    """State that both dates share.

    Attributes:
      cover: (size, size) uint8 class of every pixel, without water.
      region: (size, size) number of the parcel of every pixel.
      parcels: number of parcels.
      ground: heights and permanent water.
      landscape: composition of the scene.
      incidence: angle at the centre, degrees.
    """

    cover: np.ndarray
    region: np.ndarray
    parcels: int
    ground: Terrain
    landscape: Landscape
    incidence: float


def simulate_date(size: int, seed: tuple[int, ...], case: Case, name: str) -> Image:
    """Simulate a date; equal arguments give bitwise equal images.

    Args:
      size: side in pixels.
      seed: random seed of the pair.
      case: of the pair.
      name: "before" or "after".
    """
    rng, after = streams(seed), name == "after"
    weather = draw_weather(rng["weather"], case)
    scene = _draw_scene(rng, size + 2 * MARGIN, case.hard_case)
    water = scene.ground.water
    new = flood_land(scene.ground, weather.flood_share) if case.flooded and after else water & False
    cover, power = _power_of_date(rng, scene, new, weather, after)
    seen, truth = _observe(rng, scene, power, rng[name])
    inner = np.s_[MARGIN:-MARGIN, MARGIN:-MARGIN]
    cover, water, new = cover[inner], (water | new)[inner], new[inner]
    if rng["instrument"].integers(2):  # the radar looks east or west
        seen, truth, cover, water = (values[..., ::-1] for values in (seen, truth, cover, water))
    patch = Patch(stack_db(seen), stack_db(truth), np.ascontiguousarray(cover), scene.incidence)
    day = weather.day + timedelta(days=weather.gap_days * after)
    return Image(patch, np.ascontiguousarray(water), float(new.mean()), day)


def streams(seed: tuple[int, ...]) -> Streams:
    """Return the independent random streams of a pair by name."""
    return {
        name: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
        for number, name in enumerate(STREAMS)
    }


def _draw_scene(rng: Streams, size: int, hard_case: str) -> Scene:
    incidence = float(rng["layout"].uniform(*INCIDENCE_DEG))
    landscape = land_cover.draw_landscape(rng["layout"])
    region, count = land_cover.draw_parcels(rng["layout"], size, landscape)
    cover = land_cover.draw_land_cover(rng["layout"], region, count, landscape)
    ground = draw_terrain(rng["terrain"], region, count)
    cover = cover_low_ground(rng["terrain"], cover, ground.low, hard_case)
    return Scene(cover, region, count, ground, landscape, incidence)


def _power_of_date(
    rng: Streams, scene: Scene, new: np.ndarray, weather: Weather, after: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the cover and the linear power of a date; `new` is the mask of the flood."""
    date_rng = rng[DATES[after]]
    cover, gain = change_fields(date_rng, scene.cover, scene.region, scene.parcels)
    if not weather.snow[after]:
        cover = melt_snow(cover)
    shift = class_shift(date_rng, weather, after)
    rough = rough_water(date_rng, len(cover), weather.windy[after])
    emergent = np.isin(cover, [NUMBER[name] for name in weather.bounce_db])
    wet = scene.ground.water | new
    cover = land_cover.cover_with_water(cover, scene.ground.water | (new & ~emergent), rough)
    level = backscatter.mean_backscatter(
        rng["classes"], cover, scene.region, scene.parcels, scene.incidence
    )
    level += backscatter.structure_gain(rng["shape"], cover, scene.region, scene.landscape)
    level += shift.take(cover, axis=1) + gain * ~wet
    for name, bounce in weather.bounce_db.items():
        level[:, new & (cover == NUMBER[name])] += np.array(bounce, np.float32)[:, None]
    texture = fractal_field(rng["texture"], len(cover), backscatter.TEXTURE_STEPS)
    return cover, backscatter.textured_power(level, cover, texture)


def _observe(
    rng: Streams, scene: Scene, power: np.ndarray, date_rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the measured image of a date and the truth: (2, size, size) linear."""
    calm_water = np.uint8(NUMBER["Calm water"])
    ground = np.where(scene.ground.water, calm_water, scene.cover)[1:-1, 1:-1]
    targets = point_targets(rng["targets"], ground)
    # ships and vehicles differ between dates
    targets += point_targets(date_rng, np.full_like(ground, calm_water))
    size, instrument = len(ground), rng["instrument"]
    looks, floor = LOOKS[instrument.integers(len(LOOKS))], noise_floor(instrument, size)
    return observe(power, targets, floor, speckle(date_rng, size, looks))


INDEX = ("sequence", "date", "flooded", "flooded_fraction", "hard_case")
"""Features of the records that `pair_dates` reads."""

COLUMNS = (
    "before",
    "after",
    "flooded",
    "sequence",
    "group",
    "onset",
    "gap_days",
    "flooded_fraction",
    "hard_case",
)
"""Columns of the pairs in the metadata."""


def pair_dates(split: str, records: Columns) -> Pairs:
    """Pair the two dates of every sequence; sequences are independent of each other.

    Args:
      split: name of the split, unused.
      records: columns `INDEX` of the records.
    """
    del split
    dates: dict[str, list[tuple[str, int]]] = {}
    for number, (sequence, day) in enumerate(
        zip(records["sequence"], records["date"], strict=True)
    ):
        dates.setdefault(sequence, []).append((day, number))
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for sequence, images in dates.items():
        (first, before), (second, after) = sorted(images)
        flooded = records["flooded"][after]
        gap = date.fromisoformat(second) - date.fromisoformat(first)
        row = (before, after, flooded, sequence, sequence, bool(flooded), gap.days)
        truth = (records["flooded_fraction"][after], records["hard_case"][after])
        for name, value in zip(COLUMNS, row + truth, strict=True):
            columns[name].append(value)
    return Pairs(columns, {})


ITEM = np.dtype([("split", np.int8), ("number", np.int32), ("date", np.int8)])


def read_record(size: int, seed: int, item: tuple[int, int, int]) -> Example:
    """Simulate a record: one date of a pair.

    Args:
      size: side in pixels.
      seed: random seed of the dataset.
      item: numbers of the split, of the pair in it, and of the date: 0 or 1.
    """
    split, number, date = item
    case = case_of(number)
    image = simulate_date(size, (seed, split, number), case, DATES[date])
    sequence = f"flood_{seed}_{SPLITS[split]}_{number:06d}"
    return {
        "id": f"{sequence}_{DATES[date]}",
        "backscatter": image.patch.backscatter,
        "labels": records.multi_hot(labels(image.patch), tuple(CLASSES)),
        "noise_free": image.patch.noise_free.astype(np.float16),
        "land_cover": image.patch.land_cover,
        "incidence_angle": np.float32(image.patch.incidence_angle),
        "water": image.water.astype(np.uint8),
        "flooded": np.uint8(case.flooded and date),
        "flooded_fraction": np.float32(image.flooded_fraction),
        "hard_case": case.hard_case,
        "sequence": sequence,
        "date": image.day.isoformat(),
    }
