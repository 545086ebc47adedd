"""The report of an evaluation: predictions, metrics with intervals, tables and figures."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sar_mixmae_jax.data.metadata import add_caveats
from sar_mixmae_jax.evaluation.bootstrap import MIN_GROUPS
from sar_mixmae_jax.evaluation.metrics import THRESHOLD
from sar_mixmae_jax.evaluation.predictions import Predictions, save_predictions
from sar_mixmae_jax.tasks.registry import get_task, task_names
from sar_mixmae_jax.tasks.task_report import Pictures
from sar_mixmae_jax.utils.errors import check_name, escape_unprintable
from sar_mixmae_jax.utils.files import atomic_directory, atomic_write, write_arrays
from sar_mixmae_jax.utils.mirror import CHECKPOINTS
from sar_mixmae_jax.utils.tables import Lines, escape_markdown

PREDICTIONS, METRICS, REPORT = "predictions.npz", "metrics.json", "report.md"
FORMAT = "sar_mixmae_jax metrics 1"
FEW_GROUPS = 20
"""Number of groups below which the report calls the intervals rough."""


def array_files() -> list[str]:
    """Return the names of the array files that a report of any task may hold."""
    return [f"{array}.npz" for name in task_names() for array in get_task(name).extra_arrays]


def report_files() -> list[str]:
    """Return the names of all files that a report of any task may hold."""
    figures = [file for name in task_names() for file in get_task(name).captions]
    return [PREDICTIONS, METRICS, REPORT, *array_files(), *figures]


def write_report(
    predictions: Predictions,
    folder: Path,
    pictures: Pictures | None = None,
    *,
    extra: Mapping[str, np.ndarray] | None = None,
    replicates: int | None = None,
    seed: int = 0,
) -> dict[str, Path]:
    """Write a report atomically: only a complete one replaces an earlier one.

    Args:
      predictions: to report.
      folder: folder of the report: new, empty, or that of an earlier report. Files in it that are
        not a report's are kept.
      pictures: row number -> picture of the record; see `Task.example_pictures`.
      extra: (records, …) arrays by a name of `Task.extra_arrays`, each saved as NAME.npz with the
        ids.
      replicates: replicates of the bootstrap; None: by `bootstrap.replicates_for`.
      seed: random seed of the bootstrap.

    Returns:
      Paths by name of file: `predictions.npz`, `metrics.json`, `report.md`, arrays, figures.

    Raises:
      InputError: the predictions are not valid for their task; the folder holds something else or
        cannot be written; a picture cannot be drawn.
    """
    task = get_task(predictions.task)
    task.check_predictions(predictions)
    arrays = {f"{name}.npz": (name, array) for name, array in (extra or {}).items()}
    for file in arrays:
        check_name(array_files(), file, "file of arrays")
    with atomic_directory(folder, report_files(), METRICS) as inside:
        metrics = task.metrics(predictions)
        bootstrap = task.intervals(predictions, replicates, seed)
        intervals, title = bootstrap.pop("values"), _title(predictions)
        figure_title = add_caveats(title, _caveats(predictions.provenance))
        figures = task.figures(predictions, metrics, intervals, figure_title, pictures)
        save_predictions(predictions, inside / PREDICTIONS)
        for file, (name, array) in arrays.items():
            write_arrays(inside / file, {"ids": predictions.ids, name: array})
        for file, draw in figures.items():
            atomic_write(inside / file, draw())
        text = [
            *_head(predictions, bootstrap, title),
            *task.report_header(metrics, intervals),
            "",
            *task.tables(metrics, intervals),
            *_figure_lines({file: task.captions[file] for file in figures}),
            *_tail(predictions, bootstrap),
        ]
        atomic_write(inside / REPORT, ("\n".join(text) + "\n").encode())
        content = {
            "format": FORMAT,
            "task": predictions.task,
            "classes": list(predictions.classes),
            "rows": len(predictions.ids),
            "threshold": THRESHOLD,
            "about": predictions.provenance,
            "lead": task.summary_metrics(metrics, intervals)._asdict(),
            "metrics": metrics,
            "bootstrap": bootstrap,
            "intervals": intervals,
        }
        atomic_write(inside / METRICS, json.dumps(content, indent=1, allow_nan=False).encode())
    return {name: folder / name for name in (PREDICTIONS, METRICS, REPORT, *arrays, *figures)}


def _title(predictions: Predictions) -> str:
    """Return "run, step N: dataset, split", as far as it is known; at least the task."""
    provenance = predictions.provenance
    dataset, split = (str(provenance.get(key, "")) for key in ("dataset", "split"))
    if split and not dataset.endswith(f"/{split}"):
        dataset = ", ".join(filter(None, (dataset, split)))
    model = str(provenance.get("checkpoint", ""))
    if (path := Path(model)).parent.name == CHECKPOINTS:
        model = f"{path.parents[1].name}, step {path.name}"
    return ": ".join(filter(None, (model, dataset))) or predictions.task


def _caveats(provenance: Mapping[str, Any]) -> list[str]:
    caveats = provenance.get("caveats", [])
    return [caveats] if isinstance(caveats, str) else [str(caveat) for caveat in caveats]


def _head(predictions: Predictions, bootstrap: Mapping[str, Any], title: str) -> Lines:
    """Return the title and the caveats."""
    caveats = _caveats(predictions.provenance) + [
        f"{key.replace('_', ' ')}: {value}"
        for key, value in predictions.provenance.items()
        if "overlap" in key and not str(value).startswith("0 of ")
    ]
    groups = bootstrap["groups"]
    if groups < MIN_GROUPS:
        plural = "" if groups == 1 else "s"
        caveats.append(f"only {groups} independent group{plural}: no interval can be given")
    elif groups < FEW_GROUPS:
        caveats.append(f"only {groups} independent groups: the intervals are rough")
    notes = [
        line for caveat in caveats for line in (f"> **Caveat:** {escape_markdown(caveat)}", ">")
    ]
    return [
        f"# {escape_markdown(title)}",
        "",
        *notes[:-1],
        *([""] if notes else []),
        "## Result",
        "",
    ]


def _figure_lines(captions: Mapping[str, str]) -> Lines:
    lines = ["", "## Pictures", ""] if captions else [""]
    for file, caption in captions.items():
        lines += [caption, "", f"![{caption}]({file})", ""]
    return lines


def _tail(predictions: Predictions, bootstrap: Mapping[str, Any]) -> Lines:
    """Return definitions of the numbers, and the provenance."""
    provenance = [
        f"- {escape_markdown(key)}: {_text(value)}" for key, value in predictions.provenance.items()
    ]
    return [
        "## Method",
        "",
        f"- positive: probability strictly above {THRESHOLD}",
        "- undefined: the denominator is 0; such a value is left out of means, with one exception: "
        "the precision of a class that is present and never predicted counts as 0 in the macro "
        "mean, as in the published numbers",
        f"- brackets: {bootstrap['level']:.0%} expanded percentile intervals, "
        f"{bootstrap['replicates']} resamples of {bootstrap['groups']} whole groups, "
        f"seed {bootstrap['seed']}",
        "- the intervals cover the choice of groups of this kind, but neither other regions nor "
        "the variation between training runs",
        "",
        "## Provenance",
        "",
        *(provenance or ["None recorded."]),
    ]


def _text(value: Any) -> str:
    """Return Markdown for a string, or for other JSON, which is code."""
    if isinstance(value, str):
        return escape_markdown(value)
    text = json.dumps(value, ensure_ascii=False)
    return escape_markdown(text) if "`" in text else f"`{escape_unprintable(text)}`"
