"""Metrics of flood detection from pairs of images, as views: some of the pairs, weighted.

**Which pairs.** A sequence stays "flooded" after the onset by the rule of labelling, whether or not
the water is still there. Who waits for a flood asks of every new image: did it begin? So where the
onset is known, the headline is `onset`: positives are the pairs whose image after is the onset,
negatives are all dry pairs, of flooded and of dry sequences alike, since they are the days on which
an alarm would be false. Pairs with later flooded images are left out: neither an onset nor dry.
`all` is every pair, as published.

**What counts once.** An image is paired with every dry one of its sequence, so pairs repeat each
other: long sequences count with the square of their length. `by_pair` is that, as published;
`by_image` lets every image after count 1 in all, shared by its pairs; `by_sequence` every
sequence. The headline is `by_image`: one new image, one decision.

**Breakdowns** are by image: floods by the flooded fraction of the scene, pairs by hard case.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from sar_mixmae_jax.evaluation.bootstrap import set_path
from sar_mixmae_jax.evaluation.metrics import binary_metrics
from sar_mixmae_jax.evaluation.tables import number

WEIGHTINGS: dict[str, str | None] = {
    "by_pair": None,
    "by_image": "after",
    "by_sequence": "sequence",
}
"""The column whose values count once each; None: every row does."""

NAMES = {
    "onset": "onset",
    "all": "all pairs",
    "by_pair": "by pair",
    "by_image": "by image",
    "by_sequence": "by sequence",
}
"""Titles of evaluations and weightings."""

FRACTIONS = (0.0, 0.01, 0.05, 0.15)
FRACTION_NAMES = ("below 1 %", "1 to 5 %", "5 to 15 %", "15 % and more", "unknown")
"""Of the flooded fraction; a lower end belongs to its bin."""

NO_CASE = "plain"
Columns = Mapping[str, np.ndarray]


class View(NamedTuple):
    """Some of the rows, weighted.

    Attributes:
      path: where it stands in the metrics: evaluation, then weighting, or breakdown and name.
      rows: (m,) numbers of the rows.
      weights: (m,) what each counts.
    """

    path: tuple[str, ...]
    rows: np.ndarray
    weights: np.ndarray


def evaluations(labels: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
    """Numbers of the rows of each evaluation, the headline first; see the module."""
    every = {"all": np.arange(len(labels))}
    if "onset" not in columns:
        return every
    return {"onset": np.flatnonzero((labels == 0) | columns["onset"])} | every


def shared_weights(values: np.ndarray) -> np.ndarray:
    """(n,) weights with which every distinct value counts 1 in all."""
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    return 1.0 / count[number]


def views(labels: np.ndarray, columns: Columns) -> Iterator[View]:
    """Every view for which there are metrics."""
    for name, rows in evaluations(labels, columns).items():
        for weighting, column in WEIGHTINGS.items():
            yield View((name, weighting), rows, _weights(columns, column, rows))
        for path, chosen in _breakdowns(labels, columns, rows):
            yield View((name, *path), chosen, _weights(columns, "after", chosen))


def _weights(columns: Columns, column: str | None, rows: np.ndarray) -> np.ndarray:
    return np.ones(len(rows)) if column is None else shared_weights(columns[column][rows])


def _breakdowns(
    labels: np.ndarray, columns: Columns, rows: np.ndarray
) -> Iterator[tuple[tuple[str, str], np.ndarray]]:
    """Path below the evaluation and rows of every bin."""
    if "flooded_fraction" in columns:
        floods = rows[labels[rows] == 1]
        fraction = columns["flooded_fraction"][floods]
        number = np.digitize(fraction, FRACTIONS) - 1
        number[~np.isfinite(fraction)] = len(FRACTIONS)
        for bin_number, name in enumerate(FRACTION_NAMES):
            if name != "unknown" or (number == bin_number).any():
                yield ("by_flooded_fraction", name), floods[number == bin_number]
    if "hard_case" in columns:
        cases = columns["hard_case"][rows]
        for case in np.unique(cases):
            yield ("by_hard_case", str(case) or NO_CASE), rows[cases == case]


def compute_flood_metrics(
    probabilities: np.ndarray, labels: np.ndarray, columns: Columns
) -> dict[str, Any]:
    """Metrics of every view.

    Args:
      probabilities: (n,) of a flood.
      labels: (n,) 1 = flood.
      columns: as of `Predictions`: "after", "sequence", and "group", where known "onset",
        "flooded_fraction", "hard_case".

    Returns:
      `headline` (path of the view), `pairs`, and `evaluations`: for "onset" (where known) and
      "all" the metrics of `metrics.binary` by weighting, `by_flooded_fraction` and
      `by_hard_case`, each with its numbers of pairs (`rows`), `images`, `sequences` and `groups`.
    """
    found: dict[str, Any] = {}
    for view in views(labels, columns):
        values = binary_metrics(probabilities[view.rows], labels[view.rows], view.weights)
        counts = {
            f"{name}s": len(np.unique(columns[column][view.rows]))
            for name, column in (("image", "after"), ("sequence", "sequence"), ("group", "group"))
        }
        set_path(found, view.path, counts | values)
    first = next(iter(found))
    return {"pairs": len(labels), "headline": [first, "by_image"], "evaluations": found}


AS_PUBLISHED = ("all", "by_pair")


def temporal_gap_baseline(
    labels: np.ndarray, columns: Columns, headline: list[str]
) -> list[dict[str, Any]]:
    """Average precision and AUC of "gap_days" as the score, the longest gap the surest flood.

    Args:
      labels: (n,) 1 = flood.
      columns: as of `Predictions`; pairs whose gap is unknown are left out.
      headline: path of the headline view.

    Returns:
      `view` (path), `rows`, `average_precision`, `auc` and `prevalence` for the headline and for
      all pairs, each counting once; None where not both answers are there. Nothing without gaps.
    """
    if "gap_days" not in columns:
        return []
    asked = (tuple(headline), AS_PUBLISHED)
    return [
        _separation(view, labels, columns["gap_days"])
        for view in sorted(views(labels, columns), key=lambda one: one.path != asked[0])
        if view.path in asked
    ]


def _separation(view: View, labels: np.ndarray, gaps: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(gaps[view.rows])
    true, days, weights = labels[view.rows][known], gaps[view.rows][known], view.weights[known]
    found = {"view": list(view.path), "rows": int(known.sum())}
    if len(np.unique(true)) < 2:
        return found | dict.fromkeys(("average_precision", "auc", "prevalence"))
    return found | {
        "average_precision": float(average_precision_score(true, days, sample_weight=weights)),
        "auc": float(roc_auc_score(true, days, sample_weight=weights)),
        "prevalence": float(np.average(true, weights=weights)),
    }


def temporal_gap_sentence(found: list[dict[str, Any]]) -> str:
    """One line for the report; empty without gaps."""
    if not any(one["rows"] for one in found):
        return ""
    parts: dict[str, list[str]] = {}
    for one in found:
        values = f"AUC {number(one['auc'])}, AP {number(one['average_precision'])}"
        text = f"{values} where prevalence is {number(one['prevalence'])}"
        parts.setdefault(text, []).append(", ".join(NAMES[name] for name in one["view"]))
    told = "; ".join(f"{text} ({' = '.join(of)})" for text, of in parts.items())
    return f"The gap in days alone, no picture (AUC 0.5: tells nothing): {told}."


Place = tuple[str, str]
"""Evaluation and weighting."""


def deduplicate_views(
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
    return {first: _view_names(equal) for first, equal in same.items()}


def _view_names(places: list[Place]) -> str:
    """As "onset = all pairs, by image = by pair"."""
    weightings: dict[str, list[str]] = {}
    for name, weighting in places:
        weightings.setdefault(name, []).append(NAMES[weighting])
    names: dict[str, list[str]] = {}
    for name, every in weightings.items():
        names.setdefault(" = ".join(every), []).append(NAMES[name])
    return " = ".join(f"{' = '.join(one)}, {every}" for every, one in names.items())
