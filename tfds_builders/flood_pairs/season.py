"""What differs between dates besides the flood: seasons, fields, snow, rain and wind."""

import numpy as np

from tfds_builders.flood_pairs.cases import Weather
from tfds_builders.synthetic_s1.fields import smooth
from tfds_builders.synthetic_s1.land_cover import CLASSES, NUMBER
from tfds_builders.synthetic_s1.layout import WIND_STEP

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
