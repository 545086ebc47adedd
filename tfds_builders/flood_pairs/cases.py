"""Labels, hard cases and weather of the pairs.

Only the flood depends on the label: everything else drawn here has the same distribution in flooded
and in dry pairs, including the winds of both dates together, so the weather does not reveal a
flood.
"""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

CYCLE = ("", "wind", "", "vegetation", "", "wet soil", "", "sand", "", "")
"""Hard cases of dry pairs in turn, and of flooded ones; "": none.

- wind: in flooded pairs, wind roughens the water after the flood, which is then hardly darker than
  land; in dry pairs, roughened water becomes calm and dark without a flood.
- vegetation: forest and wetland in the low ground, bright where flooded; in dry pairs all forest
  becomes brighter too.
- wet soil: rain makes open ground brighter, with or without a flood.
- sand: smooth sand or asphalt in the low ground, as dark as the water that may cover it.
"""

CALM, WINDY = False, True
WIND_DROPS = (WINDY, CALM)
WINDS = {  # by (flooded, hard case is wind): probabilities of the winds before and after
    (False, False): {(CALM, CALM): 16 / 18, (WINDY, WINDY): 1 / 18, (CALM, WINDY): 1 / 18},
    (False, True): {WIND_DROPS: 1.0},
    (True, False): {(CALM, CALM): 16 / 18, WIND_DROPS: 2 / 18},
    (True, True): {(WINDY, WINDY): 0.5, (CALM, WINDY): 0.5},
}
FLOOD_SHARE = (0.005, 0.4)  # of the scene, log-uniform
WET_DB = (2.0, 4.0)  # rain on open ground
WOODS_DB = (1.0, 3.0)  # leaves or wet crowns
DRYING_DB = (-3.0, 0.0)  # sand
DOUBLE_BOUNCE_DB = {  # VH, VV: water under vegetation and buildings
    "Forest": ((0.0, 2.0), (3.0, 6.0)),
    "Wetland": ((0.0, 2.0), (3.0, 6.0)),
    "Urban": ((0.0, 1.0), (2.0, 5.0)),
}
SNOW_SHARE = 0.6  # of the dates of winter landscapes
FIRST_DAY, DAYS = date(2016, 1, 1), 3000  # range of first dates
GAP_DAYS = (6, 12, 18, 24, 36, 48)


class Case(NamedTuple):
    """Label and difficulty of a pair.

    Attributes:
      flooded: True if there is a flood at the second date.
      hard_case: one of `CYCLE`.
    """

    flooded: bool
    hard_case: str


class Weather(NamedTuple):
    """Changes between two dates.

    Attributes:
      windy: True if wind roughens the water, before and after.
      snow: True if there is snow on classes that can have it, before and after.
      soil_db: change of open ground, dB.
      woods_db: change of forest, dB.
      sand_db: change of sand and asphalt, dB.
      bounce_db: double-bounce gain over water by class, VH and VV, dB.
      flood_share: share of the scene that a flood covers, if there is one.
      day: of the first acquisition.
      gap_days: days to the second acquisition.
    """

    windy: tuple[bool, bool]
    snow: tuple[bool, bool]
    soil_db: float
    woods_db: float
    sand_db: float
    bounce_db: dict[str, tuple[float, float]]
    flood_share: float
    day: date
    gap_days: int


def case_of(number: int) -> Case:
    """Return the case of a pair by its number; half of any even number of pairs are flooded."""
    return Case(number % 2 == 1, CYCLE[number // 2 % len(CYCLE)])


def draw_weather(rng: np.random.Generator, case: Case) -> Weather:
    """Draw the changes between the dates of a pair."""
    hard = case.hard_case
    winds = WINDS[case.flooded, hard == "wind"]
    windy = list(winds)[rng.choice(len(winds), p=list(winds.values()))]
    snow = (rng.random(2) < SNOW_SHARE) & (hard != "wet soil")  # rain melts it
    soil, woods, sand = rng.uniform(*np.transpose([WET_DB, WOODS_DB, DRYING_DB]))
    bounce = {
        name: (float(rng.uniform(*vh)), float(rng.uniform(*vv)))
        for name, (vh, vv) in DOUBLE_BOUNCE_DB.items()
    }
    return Weather(
        windy=windy,
        snow=(bool(snow[0]), bool(snow[1])),
        soil_db=soil * (hard == "wet soil"),
        woods_db=woods * (hard == "vegetation"),
        sand_db=sand * (hard == "sand"),
        bounce_db=bounce,
        flood_share=float(np.exp(rng.uniform(*np.log(FLOOD_SHARE)))),
        day=FIRST_DAY + timedelta(days=int(rng.integers(DAYS))),
        gap_days=int(rng.choice(GAP_DAYS)),
    )
