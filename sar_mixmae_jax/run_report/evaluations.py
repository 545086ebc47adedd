"""The section about the reports that evaluations of a run wrote: their headline numbers."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from matplotlib import rc_context
from matplotlib.figure import Figure

from sar_mixmae_jax.run_report import formatting, html
from sar_mixmae_jax.run_report.history import History, Series, finite, lost, resumed
from sar_mixmae_jax.run_report.html import Markup, join, link, note, notice, section, table
from sar_mixmae_jax.run_report.plots import (
    COLOURS,
    DPI,
    STYLE,
    WIDTH,
    ShownMetrics,
    draw_line,
    drawable,
    finish,
    mark_gaps,
    shown_name,
)
from sar_mixmae_jax.run_report.sections import Best, best_checkpoint, best_section
from sar_mixmae_jax.utils.errors import first_line
from sar_mixmae_jax.utils.plotting import figure_to_png

FOLDER, METRICS, REPORT = "evaluation", "metrics.json", "report.md"
RATES = ("average_precision", "f1", "precision", "recall")
MOST = 20
"""Reports that are shown."""


def evaluations(workdir: Path) -> Markup:
    """A row for every report in the folder of a run; nothing where there is none."""
    paths = sorted((workdir / FOLDER).glob(f"*/{METRICS}"))
    rows, notes = [], []
    for path in paths[:MOST]:
        try:
            row, said = _read(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as e:
            notes.append(f"{path.relative_to(workdir)} cannot be read ({first_line(e)}).")
            continue
        rows.append(row)
        notes += [f"{path.parent.name}: {one}" for one in said]
    if not paths:
        return Markup()
    if len(paths) > MOST:
        notes.append(f"The first {MOST} of {len(paths)} reports.")
    head = ("report", *map(formatting.metric, RATES))
    return section(
        "Evaluation",
        table(head, rows, range(1, len(head))) if rows else "",
        note("Brackets: 95 % intervals over whole groups of records." if rows else ""),
        *map(note, notes),
    )


def _read(path: Path) -> tuple[list[Any], list[str]]:
    """The row of a report, and what must be said with it.

    Raises:
      OSError: it cannot be read; what else is raised says that it is no report.
    """
    found = json.loads(path.read_text())
    about, name = found["about"], path.parent.name
    lead = found["lead"]
    of, values, intervals = formatting.value(lead["of"]), lead["values"], lead["intervals"]
    caveats = about.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    said = [f"caveat: {formatting.value(caveat)}" for caveat in caveats]
    said += [f"{key}: {formatting.value(about[key])}" for key in about if "overlap" in key]
    step = Path(str(about.get("checkpoint", "not known"))).name
    row = [
        join(
            link(name, f"{FOLDER}/{quote(name, errors='surrogateescape')}/{REPORT}"),
            note(f"{formatting.value(found['rows'])} records; checkpoint {step}; {of}"),
        ),
        *(_number(values.get(rate), intervals.get(rate)) for rate in RATES),
    ]
    return row, said


def _number(value: Any, interval: Any) -> str:
    """A score with its interval."""
    if value is None:
        return "undefined"
    ends = interval if isinstance(interval, dict) else {}
    low, high = ends.get("low"), ends.get("high")
    if low is None or high is None:
        return f"{float(value):.3f}"
    return f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"


PREFIX = "validation/"
LOSS = "validation/loss"
MEANS = {"": COLOURS[0], "macro": COLOURS[0], "micro": "tab:orange"}
"""Means over the classes, by the ends of names, with the colours of their curves."""

COLUMNS, MOST_PANELS = 3, 12


def validation(run: History, workdir: Path) -> Markup:
    """Scores on the validation split; nothing where none were logged."""
    metrics = {name: one for name, one in run.metrics.items() if name.startswith(PREFIX)}
    if not metrics:
        return Markup()
    chosen = best_section(run, workdir)
    panels = grouped({name: one for name, one in metrics.items() if name != LOSS}, chosen)
    shown = dict(list(panels.items())[:MOST_PANELS])
    curves = draw_scores(shown, resumed(run.starts), chosen)
    first = chosen.metric if chosen else ""
    names = sorted(metrics, key=lambda name: (name != first, name))
    holes = [
        f"{formatting.metric(name)} at step {formatting.steps(steps)}"
        for name in names
        if len(steps := lost(metrics[name]))
    ]
    at_best = (f"at step {formatting.step(chosen.step)}",) if chosen else ()
    head = ("", "last", "at step", "best", "at step", *at_best)
    rows = [(formatting.metric(name), *_row(name, metrics[name], chosen)) for name in names]
    return section(
        "Validation",
        html.picture(curves, "Scores on the validation split over the steps") if curves else "",
        note(_told(chosen, run)),
        notice(f"Not finite (red crosses): {'; '.join(holes)}.") if holes else "",
        note(f"Curves of the first {MOST_PANELS} of {len(panels)}." if shown != panels else ""),
        table(head, rows, range(1, len(head))),
    )


def _told(chosen: Best | None, run: History) -> str:
    """Which checkpoint is the best, in a sentence."""
    if chosen is None:
        metric = formatting.metric(formatting.value(run.config.get("best_metric")))
        return f"No checkpoint that was chosen by {metric} is here."
    split = formatting.value(run.config.get("validation_split") or "not named")
    why = f"{formatting.metric(chosen.metric)}: {chosen.value:.4f}, the {chosen.word}"
    return (
        f"Split: {split}. The best checkpoint (circle) is that of step "
        f"{formatting.step(chosen.step)}, by {why} of the {chosen.kept} that are kept. Its scores "
        "here are those that it was chosen by, and therefore optimistic; what it is worth, an "
        "evaluation on the test split tells."
    )


def _row(name: str, series: Series, chosen: Best | None) -> list[str]:
    """Last and best value with their steps, and the value at the best checkpoint."""
    steps, values = finite(series)
    if not len(values):
        return ["not finite", *[""] * (4 if chosen else 3)]
    told = [formatting.number(values[-1]), formatting.step(steps[-1])]
    at = best_checkpoint(name, values)
    told += (
        ["–", "–"] if at is None else [formatting.number(values[at]), formatting.step(steps[at])]
    )
    if chosen:
        then = values[steps == chosen.step]
        told.append(formatting.number(then[0]) if len(then) else "–")
    return told


def grouped(metrics: ShownMetrics, chosen: Best | None) -> dict[str, dict[str, Series]]:
    """The curves by score and mean: {"f1": {"macro": …, "micro": …}}; what chooses is first."""
    panels: dict[str, dict[str, Series]] = defaultdict(dict)
    first = score_of(chosen.metric)[0] if chosen else ""
    for name in sorted(metrics, key=lambda name: (score_of(name)[0] != first, name)):
        if drawable(metrics[name]):
            score, mean = score_of(name)
            panels[score][mean] = metrics[name]
    return dict(panels)


def score_of(name: str) -> tuple[str, str]:
    """The score and the mean of a metric: ("f1", "macro") of "validation/f1_macro"."""
    score = name.removeprefix(PREFIX)
    stem, _, end = score.rpartition("_")
    return (stem, end) if stem and end in MEANS else (score, "")


@rc_context(STYLE)
def draw_scores(
    panels: dict[str, dict[str, Series]], again: list[float], chosen: Best | None
) -> bytes | None:
    """A panel for every score, with a line for every mean; None where there are no curves.

    Args:
      panels: of `grouped`.
      again: steps after which the run went on.
      chosen: the best checkpoint, a circle where its metric is.
    """
    if not panels:
        return None
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(WIDTH, 1.5 * rows), layout="constrained", dpi=DPI)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axis in axes[len(panels) :]:
        axis.remove()
    for axis, (score, lines) in zip(axes, panels.items(), strict=False):
        for mean, series in lines.items():
            draw_line(axis, series, MEANS[mean], mean or None)
            mark_gaps(axis, series)
            if chosen and score_of(chosen.metric) == (score, mean):
                at, circle = ([chosen.step], [chosen.value]), {"mfc": "none", "mec": "black"}
                axis.plot(*at, "o", ms=7, clip_on=False, zorder=5, **circle)
        axis.set_title(shown_name(formatting.metric(score)), loc="left")
        if any(lines):
            axis.legend(handlelength=1.2, borderaxespad=0.2)
        finish(axis, again)
    return figure_to_png(figure)
