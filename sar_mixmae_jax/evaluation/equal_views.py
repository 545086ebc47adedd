"""Views of floods that are the same: shown once, under all their names.

Where no pair has a later flooded image, `onset` is `all`; where every sequence has one pair, all
three weightings are one.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from sar_mixmae_jax.evaluation.flood_figures import NAMES

Place = tuple[str, str]
"""Evaluation and weighting."""


def distinct(
    evaluations: Mapping[str, Any], intervals: Mapping[str, Any], places: Iterable[Place]
) -> dict[Place, str]:
    """The first of every set of equal views, and the names of all of the set.

    Args:
      evaluations: of `flood_metrics.flood`.
      intervals: `values` of `bootstrap.intervals`; {} where there are none.
      places: of the views, in the order in which they are shown.
    """

    def shown(place: Place) -> tuple[Any, Any]:
        name, weighting = place
        return evaluations[name][weighting], intervals.get(name, {}).get(weighting)

    same: dict[Place, list[Place]] = {}
    for place in places:
        first = next((one for one in same if shown(one) == shown(place)), place)
        same.setdefault(first, []).append(place)
    return {first: _names(equal) for first, equal in same.items()}


def _names(places: list[Place]) -> str:
    """As "onset = all pairs, by image = by pair"."""
    weightings: dict[str, list[str]] = {}
    for name, weighting in places:
        weightings.setdefault(name, []).append(NAMES[weighting])
    names: dict[str, list[str]] = {}
    for name, every in weightings.items():
        names.setdefault(" = ".join(every), []).append(NAMES[name])
    return " = ".join(f"{' = '.join(one)}, {every}" for every, one in names.items())
