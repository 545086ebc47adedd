"""Sections about what a run was made of: dataset, code, versions, configuration, starts."""

import re
import shlex
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from sar_mixmae_jax.run_report.content import Cell, Section, make_section, make_table, note, notice
from sar_mixmae_jax.run_report.formatting import (
    UNKNOWN,
    format_devices,
    format_known,
    format_literal,
    format_time,
    format_value,
)
from sar_mixmae_jax.run_report.history import History
from sar_mixmae_jax.training.config import flatten

COLUMNS = 3
"""Fields of the configuration beside each other."""

START_COLUMNS = ("step", "time", "git", "host")
"""Fields of a start that have a column."""

NOT_COMPARED = {"step", "time", "command"}
"""Fields that differ at every start; commands are compared argument by argument."""

REVISION = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")


def reproduction_sections(run: History) -> tuple[Section, Section]:
    """Return the sections of what is needed to repeat a run, and of its configuration."""
    fields = sorted(flatten(run.config))
    start = run.starts[-1] if run.starts else {}
    git, versions = start.get("git"), start.get("versions")
    seeds = [f"{name} {value}" for name, value in fields if name.split(".")[-1].endswith("seed")]
    unit = format_value(run.dataset.get("unit") or "unknown unit")
    # A fine-tuned model standardises with the statistics of its encoder, not of the dataset.
    statistics = run.model.get("statistics", run.dataset.get("statistics"))
    versions = {"python": start.get("python"), **(versions if isinstance(versions, dict) else {})}
    facts = [
        ("dataset", run.dataset.get("name") or "unnamed"),
        ("checksum", Cell(str(run.dataset.get("checksum") or "none"), "code")),
        ("records", format_value(run.dataset.get("records"))),
        ("bands", f"{format_value(run.dataset.get('bands'))} ({unit})"),
        ("standardised with", _statistics(statistics)),
        ("git revision", Cell(format_value(git or UNKNOWN), "code")),
        ("versions", _versions(versions)),
        ("devices", f"{format_devices(start)}; processes: {format_value(start.get('processes'))}"),
        ("seeds", ", ".join(seeds) or "none in the configuration"),
        ("command", Cell(_command(start.get("command")), "code")),
    ]
    changed = any("changes" in str(start.get("git")) for start in run.starts)
    warning = notice("The code had uncommitted changes, which are needed to reproduce the run.")
    several = "Revision, versions, devices, command: of the last start."
    return (
        make_section(
            "Reproducing this run",
            warning if changed else None,
            make_table((), facts),
            note(several if len(run.starts) > 1 else ""),
            style="whole",
        ),
        make_section(
            "Configuration",
            make_table((), _in_columns(fields)) if fields else note("The configuration is empty."),
        ),
    )


def starts_section(run: History) -> Section:
    """Return a row for every start of the program, with what changed since the one before."""
    if not run.starts:
        return make_section("Starts", note("No start was recorded."))
    rows = []
    for number, start in enumerate(run.starts):
        cells = [_start_field(name, start.get(name)) for name in START_COLUMNS]
        changes = differences(run.starts[number - 1], start) if number else []
        change = Cell("; ".join(changes), "bold") if changes else ("none" if number else "–")
        rows.append((*cells, format_devices(start), change))
    head = ("after step", *START_COLUMNS[1:], "devices", "changes since the start before")
    return make_section("Starts", make_table(head, rows))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences of two starts, "name old → new" each."""
    old, new = (
        dict(flatten({name: value for name, value in start.items() if name not in NOT_COMPARED}))
        for start in (before, now)
    )
    changes = [
        f"{name.removeprefix('versions.')} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    first, second = (_arguments(start.get("command")) for start in (before, now))
    if first != second:
        edits = [f"without {argument}" for argument in first if argument not in second]
        edits += [f"with {argument}" for argument in second if argument not in first]
        changes.append(f"command {', '.join(edits) or 'reordered'}")
    return changes


def _in_columns(fields: list[tuple[str, Any]]) -> list[list[Any]]:
    """Return rows of fields and values, `COLUMNS` of them beside each other, downwards first."""
    size = -(-len(fields) // COLUMNS)
    chunks = [fields[start : start + size] for start in range(0, len(fields), size)]
    return [
        [cell for name, value in row for cell in (Cell(name, "bold"), format_literal(value))]
        for row in zip_longest(*chunks, fillvalue=("", ""))
    ]


def _arguments(command: Any) -> list[str]:
    return [*map(str, command)] if isinstance(command, list) else []


def _start_field(name: str, value: Any) -> str:
    if name == "time":
        return format_time(value)
    return UNKNOWN if value is None else _short(value)


def _short(value: Any) -> str:
    """Format a value; a git revision by its first ten digits."""
    return REVISION.sub(r"\1", format_value(value))


def _statistics(statistics: Any) -> str:
    """Format mean and standard deviation of every band."""
    fields = statistics if isinstance(statistics, dict) else {}
    mean, std, source = (format_known(fields, name) for name in ("mean", "std", "of"))
    return f"mean {mean}; standard deviation {std}; statistics of {source}"


def _versions(versions: Mapping[str, Any]) -> str:
    known = [f"{name} {format_value(version)}" for name, version in versions.items() if version]
    return ", ".join(known) or UNKNOWN


def _command(command: Any) -> str:
    """Format arguments as a shell takes them."""
    return shlex.join(map(str, command)) if isinstance(command, list) else UNKNOWN
