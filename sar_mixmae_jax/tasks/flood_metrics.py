"""Metrics of flood detection from pairs of images, as views: a subset of the pairs, weighted.

**Evaluations (which pairs).** By the rule of labelling, a sequence stays "flooded" after the
onset, whether or not the water is still there. The practical question about each new image is
whether a flood began. So where the onset is known, the headline evaluation is `onset`: positives
are the pairs whose image after is the onset, negatives are all dry pairs, of flooded and of dry
sequences alike, since on these days an alarm would be false. Pairs with later flooded images are
left out: they are neither an onset nor dry. `all` is every pair, as published.

**Weightings (what counts once).** An image is paired with every dry one of its sequence, so pairs
repeat each other, and long sequences count with the square of their length. `by_pair` counts
pairs, as published; with `by_image` each image after has the weight 1, shared by its pairs; with
`by_sequence` each sequence. The headline weighting is `by_image`: one new image, one decision.

**Breakdowns** are by image: floods by the flooded fraction of the scene, pairs by hard case.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from sar_mixmae_jax.evaluation.bootstrap import Path, set_path
from sar_mixmae_jax.evaluation.metrics import binary_metrics
from sar_mixmae_jax.utils.tables import format_metric

PAIR_WEIGHTS: dict[str, str | None] = {
    "by_pair": None,
    "by_image": "after",
    "by_sequence": "sequence",
}
"""The column whose values have the weight 1 each; None: each row has."""

NAMES = {
    "onset": "onset",
    "all": "all pairs",
    "by_pair": "by pair",
    "by_image": "by image",
    "by_sequence": "by sequence",
}
"""Titles of evaluations and weightings."""

PUBLISHED_VIEW = ("all", "by_pair")

FRACTIONS = (0.0, 0.01, 0.05, 0.15)
FRACTION_NAMES = ("below 1 %", "1 to 5 %", "5 to 15 %", "15 % and more", "unknown")
"""Bins of the flooded fraction; a lower edge belongs to its bin."""

NO_CASE = "plain"
Columns = Mapping[str, np.ndarray]


class View(NamedTuple):
    """A weighted subset of the rows.

    Attributes:
      path: keys in the metrics: evaluation, then weighting, or breakdown and part.
      rows: (m,) int, numbers of the rows.
      weights: (m,) float, weight of each.
    """

    path: Path
    rows: np.ndarray
    weights: np.ndarray


def views(labels: np.ndarray, columns: Columns) -> Iterator[View]:
    """Yield each view for which there are metrics, the headline evaluation first.

    Args:
      labels: (n,) 1 = flood.
      columns: as of `compute_flood_metrics`.
    """
    for name, rows in _evaluations(labels, columns).items():
        for weighting, column in PAIR_WEIGHTS.items():
            weights = (
                np.ones(len(rows)) if column is None else shared_weights(columns[column][rows])
            )
            yield View((name, weighting), rows, weights)
        for path, part in _breakdowns(labels, columns, rows):
            yield View((name, *path), part, shared_weights(columns["after"][part]))


def _evaluations(labels: np.ndarray, columns: Columns) -> dict[str, np.ndarray]:
    """Return numbers of the rows of each evaluation, the headline first; see the module."""
    every = {"all": np.arange(len(labels))}
    if "onset" not in columns:
        return every
    return {"onset": np.flatnonzero((labels == 0) | columns["onset"])} | every


def shared_weights(values: np.ndarray) -> np.ndarray:
    """Return (n,) weights whose sum over the rows of each distinct value is 1."""
    _, number, count = np.unique(values, return_inverse=True, return_counts=True)
    return 1.0 / count[number]


def _breakdowns(
    labels: np.ndarray, columns: Columns, rows: np.ndarray
) -> Iterator[tuple[Path, np.ndarray]]:
    """Yield (breakdown, part) and numbers of the rows of each part of an evaluation."""
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
    """Return the metrics of each view.

    Args:
      probabilities: (n,) of a flood.
      labels: (n,) 1 = flood.
      columns: of `Predictions`: "after", "sequence", and "group", where known "onset" (bool: the
        image after is the first flooded one of its sequence), "flooded_fraction" (float, NaN
        unknown), "hard_case" (str, "" none).

    Returns:
      `headline` (path of the view), `pairs`, and `evaluations`: for "onset" (where known) and
      "all" the metrics of `metrics.binary_metrics` by weighting, `by_flooded_fraction` and
      `by_hard_case`, each with its numbers of pairs (`rows`), `images`, `sequences` and `groups`.
    """
    evaluations: dict[str, Any] = {}
    for view in views(labels, columns):
        values = binary_metrics(probabilities[view.rows], labels[view.rows], view.weights)
        counts = {
            f"{name}s": len(np.unique(columns[column][view.rows]))
            for name, column in (("image", "after"), ("sequence", "sequence"), ("group", "group"))
        }
        set_path(evaluations, view.path, counts | values)
    first = next(iter(evaluations))
    return {"pairs": len(labels), "headline": [first, "by_image"], "evaluations": evaluations}


def temporal_gap_baseline(
    labels: np.ndarray, columns: Columns, headline: list[str]
) -> list[dict[str, Any]]:
    """Return average precision and AUC of "gap_days" as the score: the longer, the surer a flood.

    Args:
      labels: (n,) 1 = flood.
      columns: of `Predictions`; pairs whose gap is unknown are left out.
      headline: path of the headline view.

    Returns:
      `view` (path), `rows`, `average_precision`, `auc` and `prevalence` for the headline and for
      the published view; None unless both classes are present. Empty without "gap_days".
    """
    if "gap_days" not in columns:
        return []
    paths = (tuple(headline), PUBLISHED_VIEW)
    by_path = {view.path: view for view in views(labels, columns)}
    return [
        _gap_metrics(by_path[path], labels, columns["gap_days"]) for path in dict.fromkeys(paths)
    ]


def _gap_metrics(view: View, labels: np.ndarray, gaps: np.ndarray) -> dict[str, Any]:
    known = np.isfinite(gaps[view.rows])
    true, days, weights = labels[view.rows][known], gaps[view.rows][known], view.weights[known]
    metrics = {"view": list(view.path), "rows": int(known.sum())}
    if len(np.unique(true)) < 2:
        return metrics | dict.fromkeys(("average_precision", "auc", "prevalence"))
    return metrics | {
        "average_precision": float(average_precision_score(true, days, sample_weight=weights)),
        "auc": float(roc_auc_score(true, days, sample_weight=weights)),
        "prevalence": float(np.average(true, weights=weights)),
    }


def temporal_gap_sentence(baseline: list[dict[str, Any]]) -> str:
    """Return one line for the report; "" without gaps.

    Args:
      baseline: of `temporal_gap_baseline`.
    """
    if not any(metrics["rows"] for metrics in baseline):
        return ""
    views_of_text: dict[str, list[str]] = {}
    for metrics in baseline:
        auc, precision = format_metric(metrics["auc"]), format_metric(metrics["average_precision"])
        text = (
            f"AUC {auc}, AP {precision} where prevalence is {format_metric(metrics['prevalence'])}"
        )
        view = ", ".join(NAMES[name] for name in metrics["view"])
        views_of_text.setdefault(text, []).append(view)
    values = "; ".join(f"{text} ({' = '.join(names)})" for text, names in views_of_text.items())
    return f"The gap in days alone, without images (AUC 0.5: no information): {values}."


Place = tuple[str, str]
"""Evaluation and weighting."""


def deduplicate_views(
    evaluations: Mapping[str, Any], intervals: Mapping[str, Any], places: Iterable[Place]
) -> dict[Place, str]:
    """Return the first of each set of equal views, with the names of all of the set.

    Args:
      evaluations: of `compute_flood_metrics`.
      intervals: `values` of `bootstrap.intervals`; {} where there are none.
      places: of the views, in the order in which they are shown.
    """

    def values(place: Place) -> tuple[Any, Any]:
        name, weighting = place
        return evaluations[name][weighting], intervals.get(name, {}).get(weighting)

    equal: dict[Place, list[Place]] = {}
    for place in places:
        first = next((other for other in equal if values(other) == values(place)), place)
        equal.setdefault(first, []).append(place)
    return {first: _join_names(same) for first, same in equal.items()}


def _join_names(places: list[Place]) -> str:
    """Return the names of equal views, as "onset = all pairs, by image = by pair"."""
    weightings: dict[str, list[str]] = {}
    for name, weighting in places:
        weightings.setdefault(name, []).append(NAMES[weighting])
    names: dict[str, list[str]] = {}
    for name, every in weightings.items():
        names.setdefault(" = ".join(every), []).append(NAMES[name])
    return " = ".join(f"{' = '.join(same)}, {every}" for every, same in names.items())
