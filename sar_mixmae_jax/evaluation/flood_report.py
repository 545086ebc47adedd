"""Tables and pictures of the report about floods."""

from collections.abc import Callable
from typing import Any

from sar_mixmae_jax.evaluation import curves, flood_figures, flood_metrics
from sar_mixmae_jax.evaluation.flood_figures import NAMES
from sar_mixmae_jax.evaluation.flood_metrics import WEIGHTINGS, View, views
from sar_mixmae_jax.evaluation.pair_figures import pairs
from sar_mixmae_jax.evaluation.pair_panels import scales
from sar_mixmae_jax.evaluation.pairs import KINDS, PairPicture, check, choose
from sar_mixmae_jax.evaluation.predictions import Predictions
from sar_mixmae_jax.evaluation.table import Lines, metrics_table, with_interval

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


def metrics(predictions: Predictions) -> dict[str, Any]:
    """`flood_metrics.flood` of predictions."""
    return flood_metrics.flood(predictions.probabilities, predictions.labels, predictions.columns)


def headline(found: dict[str, Any], intervals: dict[str, Any]) -> Lines:
    """The first evaluation by image, by sequence, by pair."""
    first = found["headline"][0]
    values, ranges = found["evaluations"][first]["by_image"], intervals[first]["by_image"]
    shown = ", ".join(
        f"{COLUMNS[name]} {with_interval(values[name], ranges[name])}"
        for name in ("f1", "precision", "recall")
    )
    return [
        f"**{shown}** ({NAMES[first]}, by image)",
        "",
        MEANING[first],
        "",
        *_weightings(found, intervals, first),
        "",
        "The headline is by image: every image after counts once, shared by its pairs: one "
        "new image, one decision.",
    ]


def _weightings(found: dict[str, Any], intervals: dict[str, Any], name: str) -> Lines:
    order = sorted(WEIGHTINGS, key=lambda weighting: weighting != "by_image")
    rows = [
        (NAMES[weighting], found["evaluations"][name][weighting], intervals[name][weighting])
        for weighting in order
    ]
    return metrics_table(NAMES[name], rows, COLUMNS, COUNTS)


def tables(found: dict[str, Any], intervals: dict[str, Any]) -> Lines:
    """The other evaluation, and breakdowns of all."""
    lines: Lines = []
    for name, values in found["evaluations"].items():
        if name != found["headline"][0]:
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
    found: dict[str, Any],
    intervals: dict[str, Any],
    title: str,
    pictures: Callable[[int], PairPicture] | None,
) -> dict[str, Callable[[], bytes]]:
    """What draws each of `FIGURES` for which there is something to draw.

    Raises:
      InputError: a picture of `pictures` cannot be drawn.
    """
    evaluations, first = found["evaluations"], found["headline"][0]
    probabilities, labels = predictions.probabilities, predictions.labels
    shown = [
        curves.Curve(
            ", ".join(NAMES[part] for part in view.path),
            probabilities[view.rows],
            labels[view.rows],
            view.weights,
            evaluations[view.path[0]][view.path[1]],
        )
        for view in sorted(views(labels, predictions.columns), key=_image_first)
        if view.path[1:] in (("by_image",), ("by_pair",))
    ]
    draw: dict[str, Callable[[], bytes]] = {
        "precision_recall.png": lambda: curves.precision_recall(
            shown, f"Precision and recall: {title}"
        ),
        "confusion.png": lambda: flood_figures.confusion(
            evaluations, f"Truth and what was said: {title}"
        ),
    }
    if any(name in evaluations[first] for name in BREAKDOWNS):
        draw["breakdowns.png"] = lambda: flood_figures.breakdowns(
            evaluations[first], intervals[first], f"{NAMES[first].capitalize()}, by image: {title}"
        )
    return draw | (_pair_figures(predictions, pictures) if pictures else {})


def _image_first(view: View) -> tuple[bool, bool]:
    """Order of the curves: as the evaluations, by image before by pair."""
    return view.path[0] == "all", view.path[1] != "by_image"


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
