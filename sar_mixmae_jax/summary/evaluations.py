"""The section about the reports that evaluations of a run wrote: their headline numbers."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from sar_mixmae_jax.errors import first_line
from sar_mixmae_jax.summary import wording
from sar_mixmae_jax.summary.markup import Markup, join, link, note, section, table

FOLDER, METRICS, REPORT = "evaluation", "metrics.json", "report.md"
RATES = ("average_precision", "f1", "precision", "recall")
MOST = 20
"""Reports that are shown."""


class Headline(NamedTuple):
    """The headline numbers of a report.

    Attributes:
      of: what they are the mean of.
      values: by name; None where undefined.
      intervals: by name, {"low", "high"}.
    """

    of: str
    values: Mapping[str, Any]
    intervals: Mapping[str, Any]


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
    head = ("report", *map(wording.metric, RATES))
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
    one = HEADLINES[found["task"]](found["metrics"], found["intervals"])
    caveats = about.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    said = [f"caveat: {wording.value(caveat)}" for caveat in caveats]
    said += [f"{key}: {wording.value(about[key])}" for key in about if "overlap" in key]
    step = Path(str(about.get("checkpoint", "not known"))).name
    row = [
        join(
            link(name, f"{FOLDER}/{quote(name, errors='surrogateescape')}/{REPORT}"),
            note(f"{wording.value(found['rows'])} records; checkpoint {step}; {one.of}"),
        ),
        *(_number(one.values.get(rate), one.intervals.get(rate)) for rate in RATES),
    ]
    return row, said


def _classes(metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> Headline:
    """Means over the classes."""
    return Headline("macro", metrics["macro"], intervals["macro"])


def _floods(metrics: Mapping[str, Any], intervals: Mapping[str, Any]) -> Headline:
    """Every new image once; of its onset, where that is known."""
    first, weighting = metrics["headline"]
    values = metrics["evaluations"][first][weighting]
    of = f"{first}, {weighting}".replace("_", " ")
    return Headline(of, values, intervals[first][weighting])


HEADLINES: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Headline]] = {
    "classification": _classes,
    "flood": _floods,
}
"""Where a report of a task has its headline."""


def _number(value: Any, interval: Any) -> str:
    """A score with its interval."""
    if value is None:
        return "undefined"
    ends = interval if isinstance(interval, dict) else {}
    low, high = ends.get("low"), ends.get("high")
    if low is None or high is None:
        return f"{float(value):.3f}"
    return f"{float(value):.3f} [{float(low):.3f}, {float(high):.3f}]"
