"""Tables and pictures of the report about floods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from sar_mixmae_jax.evaluation import curves, equal_views, flood_figures, flood_metrics, gap
from sar_mixmae_jax.evaluation.flood_figures import NAMES
from sar_mixmae_jax.evaluation.flood_metrics import WEIGHTINGS, views
from sar_mixmae_jax.evaluation.pair_figures import pairs
from sar_mixmae_jax.evaluation.pair_panels import scales
from sar_mixmae_jax.evaluation.pairs import KINDS, PairPicture, check, choose
from sar_mixmae_jax.evaluation.scores import Metrics
from sar_mixmae_jax.evaluation.table import Lines, metrics_table, number, with_interval

if TYPE_CHECKING:
    from sar_mixmae_jax.evaluation.predictions import Predictions

PAIR_FIGURES = {f"pairs_{kind.replace(' ', '_')}.png": kind for kind in KINDS}
FIGURES = {
    "precision_recall.png": "Precision and recall at every threshold.",
    "confusion.png": "Truth and what was said; an image or a pair counts once.",
    "breakdowns.png": "Recall by flooded fraction, and answers in hard cases, by image.",
} | {name: f"Pairs, the surest of each sequence: {kind}." for name, kind in PAIR_FIGURES.items()}
COLUMNS = {
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


def metrics(predictions: Predictions) -> Metrics:
    """`flood_metrics.flood` of predictions, and `gap_alone` of `gap.gap_alone`."""
    labels, columns = predictions.labels, predictions.columns
    found = flood_metrics.flood(predictions.probabilities, labels, columns)
    return found | {"gap_alone": gap.gap_alone(labels, columns, found["headline"])}


def headline(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
    """The first evaluation by image, beside what needs no model; by sequence and by pair."""
    first = found["headline"][0]
    values, ranges = found["evaluations"][first]["by_image"], intervals[first]["by_image"]
    shown = {name: with_interval(values[name], ranges[name]) for name in COLUMNS}
    share = values["prevalence"]
    always = None if values["f1"] is None else 2 * share / (1 + share)
    return [
        f"**AP {shown['average_precision']}** (chance {number(share)}), "
        f"**F1 {shown['f1']}** (always flood {number(always)}), "
        f"**balanced accuracy {shown['balanced_accuracy']}**, "
        f"**false-alarm rate {shown['false_alarm_rate']}** ({NAMES[first]}, by image)",
        "",
        *_paragraph(_one_answer(values["confusion"])),
        *_paragraph(gap.sentence(found["gap_alone"])),
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
    named = equal_views.distinct(found["evaluations"], intervals, [(name, one) for one in order])
    rows = [
        (
            text.removeprefix(f"{NAMES[name]}, "),
            found["evaluations"][name][weighting],
            intervals[name][weighting],
        )
        for (_, weighting), text in named.items()
    ]
    return metrics_table(NAMES[name], rows, COLUMNS, COUNTS)


def tables(found: Metrics, intervals: Mapping[str, Any]) -> Lines:
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
            shown = {metric: COLUMNS[metric] for metric in columns}
            lines += [f"### By {title}, {NAMES[name]}, by image", ""]
            lines += [*metrics_table(title, rows, shown, COUNTS), ""]
    return lines


def figures(
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
    named = equal_views.distinct(
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
    chosen = {kind: rows for kind, rows in choose(predictions).items() if rows}
    seen = {row: pictures(row) for rows in chosen.values() for row in rows}
    for row, picture in seen.items():
        check(picture, str(predictions.ids[row]))
    scale = scales(seen.values())

    def drawing(kind: str) -> Callable[[], bytes]:
        rows = chosen[kind]
        heading = kind[0].upper() + kind[1:]
        return lambda: pairs(predictions, rows, [seen[row] for row in rows], scale, heading)

    return {name: drawing(kind) for name, kind in PAIR_FIGURES.items() if kind in chosen}
