"""Sections about scores on the validation split and about evaluation reports."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sar_mixmae_jax.run_report.content import (
    Cell,
    Section,
    make_figure,
    make_section,
    make_table,
    note,
    notice,
)
from sar_mixmae_jax.run_report.formatting import (
    as_list,
    format_metric,
    format_number,
    format_step,
    format_steps,
    format_value,
)
from sar_mixmae_jax.run_report.history import (
    BestCheckpoint,
    History,
    Series,
    best_index,
    find_best_checkpoint,
    finite,
    has_curve,
    nonfinite_steps,
)
from sar_mixmae_jax.run_report.plots import MEANS, VALIDATION_LOSS, draw_scores
from sar_mixmae_jax.tasks.evaluation_report import METRICS, REPORT
from sar_mixmae_jax.training.downstream import shared_splits
from sar_mixmae_jax.training.workdir import EVALUATION
from sar_mixmae_jax.utils.errors import first_line
from sar_mixmae_jax.utils.files import read_json

PREFIX = "validation/"
MAX_PANELS = 12
"""Scores that are drawn."""

RATES = ("average_precision", "f1", "precision", "recall")
MAX_REPORTS = 20
"""Reports that are listed."""


# ---- validation


def validation_section(run: History, workdir: Path) -> Section | None:
    """Return curves and best values of the validation metrics; None if none were logged."""
    metrics = {name: series for name, series in run.metrics.items() if name.startswith(PREFIX)}
    if not metrics:
        return None
    best = find_best_checkpoint(run, workdir)
    panels = group_scores(metrics, best)
    drawn = dict([*panels.items()][:MAX_PANELS])
    png = draw_scores(drawn, run.resumed, best, split_score(best.metric) if best else ("", ""))
    first = best.metric if best else ""
    names = sorted(metrics, key=lambda name: (name != first, name))
    gaps = [
        f"{format_metric(name)} at step {format_steps(steps)}"
        for name in names
        if len(steps := nonfinite_steps(metrics[name]))
    ]
    at_best = (f"at step {format_step(best.step)}",) if best else ()
    head = ("", "last", "at step", "best", "at step", *at_best)
    rows = [(format_metric(name), *_validation_row(name, metrics[name], best)) for name in names]
    return make_section(
        "Validation",
        make_figure(png, "Scores on the validation split over the steps"),
        note(_selection(best, run)),
        notice(warning) if (warning := _trained_on(run)) else None,
        notice(f"Not finite (red crosses): {'; '.join(gaps)}.") if gaps else None,
        note(f"Curves of the first {MAX_PANELS} of {len(panels)}." if drawn != panels else ""),
        make_table(head, rows, range(1, len(head))),
    )


def _trained_on(run: History) -> str:
    """Return a warning if the validation split is also trained on; else ""."""
    splits = (run.config.get(name) for name in ("train_split", "validation_split"))
    train, validation = (value if isinstance(value, str) else "" for value in splits)
    if not (train and shared_splits(train, validation)):
        return ""
    return (
        f"The validation split, {format_value(validation)}, is part of the training split, "
        f"{format_value(train)}: its scores do not measure generalisation."
    )


def _selection(best: BestCheckpoint | None, run: History) -> str:
    """Return a sentence about the selection of the best checkpoint."""
    if best is None and run.config.get("validation") == "none":
        return "The run has no validation: no checkpoint is selected, the last step counts."
    if best is None:
        metric = format_metric(format_value(run.config.get("best_metric")))
        return f"There is no checkpoint selected by {metric}."
    split = format_value(run.config.get("validation_split") or "unknown")
    return (
        f"Split: {split}. The best checkpoint (circle) is step {format_step(best.step)}, selected "
        f"by {format_metric(best.metric)} {best.value:.4f}, the {best.rank} of the {best.kept} "
        "kept. Its scores here are optimistic, as the same split selected it; evaluate it on the "
        "test split."
    )


def _validation_row(name: str, series: Series, best: BestCheckpoint | None) -> list[str]:
    """Return the last and the best value with their steps, and that at the best checkpoint."""
    steps, values = finite(series)
    if not len(values):
        return ["not finite", *[""] * (4 if best else 3)]
    cells = [format_number(values[-1]), format_step(steps[-1])]
    index = best_index(name, values)
    cells += (
        ["–", "–"] if index is None else [format_number(values[index]), format_step(steps[index])]
    )
    if best:
        at_best = values[steps == best.step]
        cells.append(format_number(at_best[0]) if len(at_best) else "–")
    return cells


def group_scores(
    metrics: Mapping[str, Series], best: BestCheckpoint | None
) -> dict[str, dict[str, Series]]:
    """Group curves by score and mean: {"f1": {"macro": …, "micro": …}}.

    The score that selects the best checkpoint is first; the loss is left out, as the training
    section draws it.
    """
    panels: dict[str, dict[str, Series]] = defaultdict(dict)
    first = split_score(best.metric)[0] if best else ""
    for name in sorted(metrics, key=lambda name: (split_score(name)[0] != first, name)):
        if name != VALIDATION_LOSS and has_curve(metrics[name]):
            score, mean = split_score(name)
            panels[score][mean] = metrics[name]
    return dict(panels)


def split_score(name: str) -> tuple[str, str]:
    """Return score and mean of a metric: ("f1", "macro") of "validation/f1_macro"."""
    score = name.removeprefix(PREFIX)
    stem, _, end = score.rpartition("_")
    return (stem, end) if stem and end in MEANS else (score, "")


# ---- reports


def evaluation_section(workdir: Path) -> Section | None:
    """Return a row for every evaluation report of a run; None if there are none."""
    paths = sorted((workdir / EVALUATION).glob(f"*/{METRICS}"))
    if not paths:
        return None
    rows, notes = [], []
    for path in paths[:MAX_REPORTS]:
        try:
            row, remarks = _read_report(path)
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as e:
            notes.append(f"{path.relative_to(workdir)} cannot be read ({first_line(e)}).")
            continue
        rows.append(row)
        notes += [f"{path.parent.name}: {remark}" for remark in remarks]
    if len(paths) > MAX_REPORTS:
        notes.append(f"The first {MAX_REPORTS} of {len(paths)} reports.")
    head = ("report", *map(format_metric, RATES))
    bracketed = any("[" in str(cell) for _, *cells in rows for cell in cells)
    return make_section(
        "Evaluation",
        make_table(head, rows, range(1, len(head))) if rows else None,
        note("Brackets: 95 % bootstrap intervals over groups of records." if bracketed else ""),
        *map(note, notes),
    )


def _read_report(path: Path) -> tuple[list[Any], list[str]]:
    """Read the metrics of a report.

    Returns:
      Its row of the table, and caveats and overlaps with the training data.

    Raises:
      OSError: the file cannot be read.
      ValueError, LookupError, TypeError, AttributeError: it is no report.
    """
    content = read_json(path)
    provenance, name, summary = content["about"], path.parent.name, content["lead"]
    values, intervals = summary["values"], summary["intervals"]
    remarks = [f"caveat: {format_value(one)}" for one in as_list(provenance.get("caveats"))]
    remarks += [
        f"{key}: {format_value(value)}" for key, value in provenance.items() if "overlap" in key
    ]
    step = Path(str(provenance.get("checkpoint", "unknown"))).name
    link = f"{EVALUATION}/{quote(name, errors='surrogateescape')}/{REPORT}"
    detail = (
        f"{format_value(content['rows'])} records; checkpoint {step}; {format_value(summary['of'])}"
    )
    cells = (_with_interval(values.get(rate), intervals.get(rate)) for rate in RATES)
    return [Cell(name, link=link, detail=detail), *cells], remarks


def _with_interval(value: Any, interval: Any) -> str:
    """Format a score with its interval."""
    if value is None:
        return "undefined"
    ends = interval if isinstance(interval, dict) else {}
    low, high = ends.get("low"), ends.get("high")
    if low is None or high is None:
        return f"{float(value):.3f}"
    return f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"
