"""The report: a folder with the predictions, all metrics with intervals, tables and pictures."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.evaluation.bootstrap import MIN_GROUPS, intervals
from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.tasks.flood_panels import PairPicture
from sar_mixmae_jax.tasks.kinds import KINDS
from sar_mixmae_jax.utils.errors import check_name
from sar_mixmae_jax.utils.files import atomic_directory, atomic_write, write_arrays
from sar_mixmae_jax.utils.tables import Lines, escape_markdown

PREDICTIONS, METRICS, REPORT = "predictions.npz", "metrics.json", "report.md"
EVIDENCE = "evidence.npz"
ARRAYS = (EVIDENCE,)
"""Files of arrays that a report may be given."""

OWN = (
    PREDICTIONS,
    METRICS,
    REPORT,
    *ARRAYS,
    *(name for one in KINDS.values() for name in one.captions),
)
"""Names of all files that a report may hold."""

FORMAT = "sar_mixmae_jax metrics 1"
FEW_GROUPS = 20
"""Below, intervals are said to be rough."""


def write_report(
    predictions: Predictions,
    folder: Path,
    pictures: Callable[[int], PairPicture] | None = None,
    *,
    arrays: Mapping[str, dict[str, np.ndarray]] | None = None,
    replicates: int | None = None,
    seed: int = 0,
) -> dict[str, Path]:
    """Writes a report; it appears whole or not at all, and only a whole one replaces another.

    Args:
      predictions: what it is about.
      folder: of the report: new, empty, or that of an earlier report. Files in it that are not a
        report's are kept.
      pictures: of floods: gives the picture of a pair by its row.
      arrays: further files to put into the report: arrays by name, by name of file, of `ARRAYS`.
      replicates: of the bootstrap; by `bootstrap.replicates_for` if not given.
      seed: of the bootstrap.

    Returns:
      Paths by name of file: `predictions.npz`, `metrics.json`, `report.md`, arrays, pictures.

    Raises:
      InputError: the folder holds something else or cannot be written; a picture cannot be drawn.
    """
    arrays = arrays or {}
    for name in arrays:
        check_name(ARRAYS, name, "file of arrays")
    with atomic_directory(folder, OWN, METRICS) as inside:
        kind = KINDS[predictions.task]
        found, sampled = kind.metrics(predictions), intervals(predictions, replicates, seed)
        values, title = sampled.pop("values"), _title(predictions)
        draw = kind.figures(predictions, found, values, title, pictures)
        save_predictions(predictions, inside / PREDICTIONS)
        for name, values_by_name in arrays.items():
            write_arrays(inside / name, values_by_name)
        for name, one in draw.items():
            atomic_write(inside / name, one())
        text = [
            *_head(predictions, sampled, title),
            *kind.headline(found, values),
            "",
            *kind.tables(found, values),
            *_pictures({name: kind.captions[name] for name in draw}),
            *_tail(predictions, sampled),
        ]
        atomic_write(inside / REPORT, ("\n".join(text) + "\n").encode())
        everything = {
            "format": FORMAT,
            "task": predictions.task,
            "classes": list(predictions.classes),
            "rows": len(predictions.ids),
            "threshold": THRESHOLD,
            "about": predictions.about,
            "lead": kind.lead(found, values)._asdict(),
            "metrics": found,
            "bootstrap": sampled,
            "intervals": values,
        }
        atomic_write(inside / METRICS, json.dumps(everything, indent=1, allow_nan=False).encode())
    return {name: folder / name for name in (PREDICTIONS, METRICS, REPORT, *arrays, *draw)}


def _title(predictions: Predictions) -> str:
    named = [
        str(predictions.about[key]) for key in ("dataset", "split") if key in predictions.about
    ]
    return ", ".join(named) or predictions.task


def _head(predictions: Predictions, sampled: dict[str, Any], title: str) -> Lines:
    """Title and what a reader must know before the first number."""
    caveats = predictions.about.get("caveats", [])
    caveats = [caveats] if isinstance(caveats, str) else list(caveats)
    caveats += [
        f"{key.replace('_', ' ')}: {_text(value)}"
        for key, value in predictions.about.items()
        if "overlap" in key
    ]
    groups = sampled["groups"]
    if groups < MIN_GROUPS:
        plural = "" if groups == 1 else "s"
        caveats.append(f"only {groups} independent group{plural}: no interval can be given")
    elif groups < FEW_GROUPS:
        caveats.append(f"only {groups} independent groups: the intervals are rough")
    notes = [
        line for one in caveats for line in (f"> **Caveat:** {escape_markdown(str(one))}", ">")
    ]
    return [
        f"# {escape_markdown(title)}",
        "",
        *notes[:-1],
        *([""] if notes else []),
        "## Result",
        "",
    ]


def _pictures(shown: dict[str, str]) -> Lines:
    lines = ["", "## Pictures", ""]
    for name, text in shown.items():
        lines += [f"{text}", "", f"![{text}]({name})", ""]
    return lines


def _tail(predictions: Predictions, sampled: dict[str, Any]) -> Lines:
    """How it was computed, and everything that is known about the predictions."""
    about = [
        f"- {escape_markdown(key)}: {escape_markdown(_text(one))}"
        for key, one in predictions.about.items()
    ]
    return [
        "## How",
        "",
        f"- positive: probability strictly above {THRESHOLD}",
        "- undefined: there is nothing to divide by; never counted as 0. A class that is there and "
        "never predicted counts as precision 0 in the macro mean, as in the published numbers",
        f"- brackets: {sampled['level']:.0%} expanded percentile intervals, "
        f"{sampled['replicates']} resamples of {sampled['groups']} whole groups, "
        f"seed {sampled['seed']}",
        "- they tell how sure the numbers are for other groups of this kind; not for other "
        "regions, and not how much another training run would differ",
        "",
        "## About",
        "",
        *(about or ["Nothing was said."]),
    ]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
