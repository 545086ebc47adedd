"""What predictions of floods must be like, besides what all must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sar_mixmae_jax.evaluation import curves
from sar_mixmae_jax.evaluation.bootstrap import BinaryProblem, make_binary_problem
from sar_mixmae_jax.evaluation.metrics import Metrics, Scores, SummaryMetrics
from sar_mixmae_jax.evaluation.predictions import invalid_predictions
from sar_mixmae_jax.evaluation.tables import metrics_table, number, with_interval
from sar_mixmae_jax.tasks import flood_figures, flood_metrics
from sar_mixmae_jax.tasks.flood_figures import NAMES
from sar_mixmae_jax.tasks.flood_metrics import WEIGHTINGS, views
from sar_mixmae_jax.tasks.flood_panels import (
    OUTCOMES,
    PairPicture,
    check_pair_pictures,
    choose_examples,
    draw_pairs,
    scales,
)
from sar_mixmae_jax.utils.errors import InputError
from sar_mixmae_jax.utils.tables import Lines

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions


FLOOD_COLUMNS = ("before", "after", "sequence")


def check_flood_predictions(predictions: Predictions) -> None:
    """Refuses pairs that contradict themselves.

    Raises:
      InputError: says which column is wrong, and which rows.
    """
    columns, labels = predictions.columns, predictions.labels
    for name in ("sequence", "after"):
        _, inner = np.unique(columns[name], return_inverse=True)
        leader = np.full(inner.max() + 1, -1)
        leader[inner[::-1]] = predictions.groups[::-1]  # the group of the first row of each
        split = leader[inner] != predictions.groups
        invalid_predictions(
            predictions, split, f"column {name!r} has values that lie in two groups"
        )
    onset = columns.get("onset")
    if onset is not None:
        if onset.dtype.kind != "b":
            raise InputError(f"column 'onset' is {onset.dtype}, expected bool")
        invalid_predictions(
            predictions, onset & (labels == 0), "onset is true, but the label is dry"
        )
    fraction = columns.get("flooded_fraction")
    if fraction is not None:
        if fraction.dtype.kind != "f":
            raise InputError(f"column 'flooded_fraction' is {fraction.dtype}, expected float")
        outside = np.asarray((fraction < 0) | (fraction > 1))
        invalid_predictions(predictions, outside, "flooded_fraction is not between 0 and 1")
    case = columns.get("hard_case")
    if case is not None and case.dtype.kind != "U":
        raise InputError(f"column 'hard_case' is {case.dtype}, expected text, '' for none")
    gap = columns.get("gap_days")
    if gap is not None and gap.dtype.kind not in "iuf":
        raise InputError(f"column 'gap_days' is {gap.dtype}, expected numbers")


def flood_problems(
    predictions: Predictions, groups: np.ndarray, count: int
) -> Iterator[tuple[tuple[str, ...], BinaryProblem]]:
    """Every view with its weights."""
    probabilities, labels = predictions.probabilities, predictions.labels
    for view in views(labels, predictions.columns):
        rows = view.rows
        weights = None if (view.weights == 1).all() else view.weights
        yield (
            view.path,
            make_binary_problem(probabilities[rows], labels[rows], groups[rows], count, weights),
        )


FLOOD_RATES = ("average_precision", "f1", "precision", "recall", "balanced_accuracy", "accuracy")


def _read_headline(rate: str) -> Callable[[Metrics], float | None]:
    """Of onset images where they are known, every image counting once."""

    def read(metrics: Metrics) -> float | None:
        first, weighting = metrics["headline"]
        return metrics["evaluations"][first][weighting][rate]

    return read


FLOOD_SCORES: Scores = {rate: _read_headline(rate) for rate in FLOOD_RATES}
FLOOD_COMPARED = {
    "average_precision": "onset AP",
    "f1": "onset F1",
    "balanced_accuracy": "onset balanced accuracy",
}


def flood_breakdowns(metrics: Metrics) -> dict[str, dict[str, float | None]]:
    """By image, of the first evaluation."""
    evaluation = metrics["evaluations"][metrics["headline"][0]]
    fractions = evaluation.get("by_flooded_fraction", {}).items()
    cases = evaluation.get("by_hard_case", {}).items()
    found = {
        "recall by flooded fraction": {name: one["recall"] for name, one in fractions},
        "recall by hard case": {name: one["recall"] for name, one in cases},
        "false alarms by hard case": {name: one["false_alarm_rate"] for name, one in cases},
    }
    return {title: parts for title, parts in found.items() if parts}


def flood_summary_metrics(metrics: Metrics, intervals: Mapping[str, Any]) -> SummaryMetrics:
    """Every new image once; of its onset, where that is known."""
    first, weighting = metrics["headline"]
    of = f"{first}, {weighting}".replace("_", " ")
    return SummaryMetrics(of, metrics["evaluations"][first][weighting], intervals[first][weighting])


PAIR_FIGURES = {f"pairs_{kind.replace(' ', '_')}.png": kind for kind in OUTCOMES}
FLOOD_FIGURES = {
    "precision_recall.png": "Precision and recall at every threshold.",
    "confusion.png": "Truth and what was said; an image or a pair counts once.",
    "breakdowns.png": "Recall by flooded fraction, and answers in hard cases, by image.",
} | {name: f"Pairs, the surest of each sequence: {kind}." for name, kind in PAIR_FIGURES.items()}
VIEW_COLUMNS = {
    "f1": "F1",
    "precision": "precision",
    "recall": "recall",
    "average_precision": "AP",
    "balanced_accuracy": "balanced accuracy",
    "false_alarm_rate": "false alarms",
    "accuracy": "accuracy",
    "prevalence": "prevalence",
}
COUNTS = {"rows": "pairs", "images": "images", "sequences": "sequences"}
MEANING = {
    "onset": "Positives are the pairs whose image after is the first flooded one of its sequence, "
    "negatives all dry pairs; later flooded images, which stay labelled so by rule, are left out.",
    "all": "Every pair; by pair is how published numbers are counted.",
}
BREAKDOWNS = {
    "by_flooded_fraction": ("flooded fraction", ("recall",)),
    "by_hard_case": ("hard case", ("recall", "false_alarm_rate")),
}


def compute_metrics(predictions: Predictions) -> Metrics:
    """`flood_metrics.flood` of predictions, and `gap_alone` of `gap.gap_alone`."""
    labels, columns = predictions.labels, predictions.columns
    found = flood_metrics.compute_flood_metrics(predictions.probabilities, labels, columns)
    return found | {
        "gap_alone": flood_metrics.temporal_gap_baseline(labels, columns, found["headline"])
    }


def flood_headline(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """The first evaluation by image, beside what needs no model; by sequence and by pair."""
    first = found["headline"][0]
    values, ranges = found["evaluations"][first]["by_image"], intervals[first]["by_image"]
    shown = {name: with_interval(values[name], ranges[name]) for name in VIEW_COLUMNS}
    share = values["prevalence"]
    always = None if values["f1"] is None else 2 * share / (1 + share)
    return [
        f"**AP {shown['average_precision']}** (chance {number(share)}), "
        f"**F1 {shown['f1']}** (always flood {number(always)}), "
        f"**balanced accuracy {shown['balanced_accuracy']}**, "
        f"**false-alarm rate {shown['false_alarm_rate']}** ({NAMES[first]}, by image)",
        "",
        *_paragraph(_one_answer(values["confusion"])),
        *_paragraph(flood_metrics.temporal_gap_sentence(found["gap_alone"])),
        MEANING[first],
        "",
        *_weightings(found, intervals, first),
        "",
        "The headline is by image: every image after counts once, shared by its pairs: one "
        "new image, one decision.",
    ]


def _paragraph(text: str) -> Lines:
    return [text, ""] if text else []


def _one_answer(cells: dict[str, float]) -> str:
    """A sentence if everything was called the same; empty otherwise."""
    said = {"flood": cells["fp"] + cells["tp"], "dry": cells["tn"] + cells["fn"]}
    only = [answer for answer, weight in said.items() if weight > 0]
    if len(only) != 1:
        return ""
    return (
        f"**Every pair is called {only[0]}**, so at this threshold the model tells nothing apart; "
        "AP alone says whether its scores do."
    )


def _weightings(found: Metrics, intervals: Mapping[str, Any], name: str) -> Lines:
    order = sorted(WEIGHTINGS, key=lambda weighting: weighting != "by_image")
    named = flood_metrics.deduplicate_views(
        found["evaluations"], intervals, [(name, one) for one in order]
    )
    rows = [
        (
            text.removeprefix(f"{NAMES[name]}, "),
            found["evaluations"][name][weighting],
            intervals[name][weighting],
        )
        for (_, weighting), text in named.items()
    ]
    return metrics_table(NAMES[name], rows, VIEW_COLUMNS, COUNTS)


def flood_tables(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """The other evaluation, and breakdowns of all."""
    lines: Lines = []
    first = found["headline"][0]
    for name, values in found["evaluations"].items():
        equal = values == found["evaluations"][first] and intervals[name] == intervals[first]
        if name != first and equal:
            same = f"The same as {NAMES[first]}: there is no later flooded image to leave out."
            lines += ["## All pairs", "", same, ""]
            continue
        if name != first:
            lines += [
                "## All pairs",
                "",
                MEANING[name],
                "",
                *_weightings(found, intervals, name),
                "",
            ]
        for breakdown, (title, columns) in BREAKDOWNS.items():
            if breakdown not in values:
                continue
            rows = [
                (one, inner, intervals[name][breakdown][one])
                for one, inner in values[breakdown].items()
            ]
            shown = {metric: VIEW_COLUMNS[metric] for metric in columns}
            lines += [f"### By {title}, {NAMES[name]}, by image", ""]
            lines += [*metrics_table(title, rows, shown, COUNTS), ""]
    return lines


def draw_figures(
    predictions: Predictions,
    found: Metrics,
    intervals: Mapping[str, Any],
    title: str,
    pictures: Callable[[int], PairPicture] | None = None,
) -> dict[str, Callable[[], bytes]]:
    """What draws each of `FIGURES` for which there is something to draw.

    Raises:
      InputError: a picture of `pictures` cannot be drawn.
    """
    evaluations, first = found["evaluations"], found["headline"][0]
    probabilities, labels = predictions.probabilities, predictions.labels
    named = flood_metrics.deduplicate_views(
        evaluations, intervals, [(one, by) for one in evaluations for by in flood_figures.MATRICES]
    )
    by_path = {view.path: view for view in views(labels, predictions.columns)}
    shown = [
        curves.Curve(
            name,
            probabilities[view.rows],
            labels[view.rows],
            view.weights,
            evaluations[view.path[0]][view.path[1]],
        )
        for view, name in ((by_path[place], name) for place, name in named.items())
    ]
    draw: dict[str, Callable[[], bytes]] = {
        "precision_recall.png": lambda: curves.precision_recall(
            shown, f"Precision and recall: {title}"
        ),
        "confusion.png": lambda: flood_figures.confusion(
            evaluations, named, f"Truth and what was said: {title}"
        ),
    }
    if any(name in evaluations[first] for name in BREAKDOWNS):
        draw["breakdowns.png"] = lambda: flood_figures.breakdowns(
            evaluations[first], intervals[first], f"{NAMES[first].capitalize()}, by image: {title}"
        )
    return draw | (_pair_figures(predictions, pictures) if pictures else {})


def _pair_figures(
    predictions: Predictions, pictures: Callable[[int], PairPicture]
) -> dict[str, Callable[[], bytes]]:
    """One figure for each kind of which there are pairs, all on the same scales."""
    chosen = {kind: rows for kind, rows in choose_examples(predictions).items() if rows}
    seen = {row: pictures(row) for rows in chosen.values() for row in rows}
    for row, picture in seen.items():
        check_pair_pictures(picture, str(predictions.ids[row]))
    scale = scales(seen.values())

    def drawing(kind: str) -> Callable[[], bytes]:
        rows = chosen[kind]
        heading = kind[0].upper() + kind[1:]
        return lambda: draw_pairs(predictions, rows, [seen[row] for row in rows], scale, heading)

    return {name: drawing(kind) for name, kind in PAIR_FIGURES.items() if kind in chosen}
