"""The section about the reports that evaluations of a run wrote: their headline numbers."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sar_mixmae_jax.errors import first_line
from sar_mixmae_jax.summary import wording
from sar_mixmae_jax.summary.markup import Markup, join, link, note, section, table

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
    lead = found["lead"]
    of, values, intervals = wording.value(lead["of"]), lead["values"], lead["intervals"]
    caveats = about.get("caveats") or []
    caveats = caveats if isinstance(caveats, list) else [caveats]
    said = [f"caveat: {wording.value(caveat)}" for caveat in caveats]
    said += [f"{key}: {wording.value(about[key])}" for key in about if "overlap" in key]
    step = Path(str(about.get("checkpoint", "not known"))).name
    row = [
        join(
            link(name, f"{FOLDER}/{quote(name, errors='surrogateescape')}/{REPORT}"),
            note(f"{wording.value(found['rows'])} records; checkpoint {step}; {of}"),
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
