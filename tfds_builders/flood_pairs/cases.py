"""Which pair is flooded, which is hard, and what else happens between its two dates.

Nothing but the flood depends on the label: what is drawn here has the same distribution in flooded
and in dry pairs, the winds of both dates together too. So no trace of the weather tells a flood.
"""

from datetime import date, timedelta
from typing import NamedTuple

import numpy as np

CYCLE = ("", "wind", "", "vegetation", "", "wet soil", "", "sand", "", "")
"""Hard cases of dry pairs in turn, and of flooded ones; "": none.

- wind: in flooded pairs the wind roughens the water after the flood, which is hardly darker than
  land then; in dry ones roughened water falls calm, and turns dark without a flood.
- vegetation: woods and reeds in the low ground, bright where flooded; in dry pairs woods turn
  brighter too, wherever they are.
- wet soil: rain on open ground makes it brighter, whether or not a flood comes with it.
- sand: smooth sand or asphalt in the low ground, as dark as the water that may come over it.
"""

CALM, WINDY = False, True
CALMS = (WINDY, CALM)
WINDS = {  # flooded, wind is the hard case: probabilities of the winds before and after
    (False, False): {(CALM, CALM): 16 / 18, (WINDY, WINDY): 1 / 18, (CALM, WINDY): 1 / 18},
    (False, True): {CALMS: 1.0},
    (True, False): {(CALM, CALM): 16 / 18, CALMS: 2 / 18},
    (True, True): {(WINDY, WINDY): 0.5, (CALM, WINDY): 0.5},
}
FLOOD_SHARE = (0.005, 0.4)  # of the scene: small floods are as frequent as large ones, in logs
WET_DB = (2.0, 4.0)  # rain on open ground
WOODS_DB = (1.0, 3.0)  # leaves or wet crowns
DRYING_DB = (-3.0, 0.0)  # sand
DOUBLE_BOUNCE_DB = {  # VH, VV: water under what stands in it
    "Forest": ((0.0, 2.0), (3.0, 6.0)),
    "Wetland": ((0.0, 2.0), (3.0, 6.0)),
    "Urban": ((0.0, 1.0), (2.0, 5.0)),
}
SNOW_SHARE = 0.6  # of the dates on which winter landscapes are white
FIRST_DAY, DAYS = date(2016, 1, 1), 3000  # in which first dates lie
GAP_DAYS = (6, 12, 18, 24, 36, 48)


class Case(NamedTuple):
    """What a pair is.

    Attributes:
      flooded: whether there is a flood at the second date.
      hard_case: one of `CYCLE`.
    """

    flooded: bool
    hard_case: str


class Weather(NamedTuple):
    """What happens between two dates.

    Attributes:
      windy: whether the wind roughens water, before and after.
      snow: whether there is snow where it may be, before and after.
      soil_db: change of open ground.
      woods_db: change of woods.
      sand_db: change of sand and asphalt.
      bounce_db: gain of what stands in water, VH and VV by class.
      flood_share: of the scene that is to be flooded if there is a flood.
      day: of the first acquisition.
      gap_days: to the second.
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
    """The case of a pair by its number in the split: exactly half of any even count are flooded."""
    return Case(number % 2 == 1, CYCLE[number // 2 % len(CYCLE)])


def weather(rng: np.random.Generator, case: Case) -> Weather:
    """Draws what happens between the dates of a pair."""
    hard = case.hard_case
    winds = WINDS[case.flooded, hard == "wind"]
    windy = list(winds)[rng.choice(len(winds), p=list(winds.values()))]
    white = (rng.random(2) < SNOW_SHARE) & (hard != "wet soil")  # rain melts it
    soil, woods, sand = rng.uniform(*np.transpose([WET_DB, WOODS_DB, DRYING_DB]))
    bounce = {
        name: (float(rng.uniform(*vh)), float(rng.uniform(*vv)))
        for name, (vh, vv) in DOUBLE_BOUNCE_DB.items()
    }
    return Weather(
        windy=windy,
        snow=(bool(white[0]), bool(white[1])),
        soil_db=soil * (hard == "wet soil"),
        woods_db=woods * (hard == "vegetation"),
        sand_db=sand * (hard == "sand"),
        bounce_db=bounce,
        flood_share=float(np.exp(rng.uniform(*np.log(FLOOD_SHARE)))),
        day=FIRST_DAY + timedelta(days=int(rng.integers(DAYS))),
        gap_days=int(rng.choice(GAP_DAYS)),
    )
