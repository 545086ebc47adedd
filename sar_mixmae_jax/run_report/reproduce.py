"""The sections of the page that say what a run was made of, for who wants to repeat it."""

import re
import shlex
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from sar_mixmae_jax.run_report import formatting
from sar_mixmae_jax.run_report.history import History
from sar_mixmae_jax.run_report.html import Markup, join, note, notice, section, table, tag
from sar_mixmae_jax.training.config import flatten

COLUMNS = 3
TOLD = ("step", "time", "git", "host")
"""Of a start, as columns."""

APART = {"step", "time", "command"}
"""Of a start: what differs every time, or is compared by itself."""

REVISION = re.compile(r"\b([0-9a-f]{10})[0-9a-f]{30}\b")


def ingredients(run: History) -> Markup:
    """Dataset, code, versions and every field of the configuration."""
    fields = sorted(flatten(run.config))
    start = run.starts[-1] if run.starts else {}
    git, versions = start.get("git"), start.get("versions")
    seeds = [f"{name} {value}" for name, value in fields if name.split(".")[-1].endswith("seed")]
    own = run.dataset.get("statistics")  # of the dataset: a tuned model has those of its encoder
    facts = [
        ("dataset", run.dataset.get("name") or "unnamed"),
        ("checksum", tag("code", run.dataset.get("checksum") or "none was made")),
        ("records", formatting.value(run.dataset.get("records"))),
        ("bands", f"{formatting.value(run.dataset.get('bands'))} ({_unit(run)})"),
        (
            "standardised with",
            _statistics(run.model.get("statistics", own)),
        ),
        ("git revision", tag("code", formatting.value(git or "not known"))),
        ("versions", _versions({"python": start.get("python"), **_mapping(versions)})),
        (
            "devices",
            f"{formatting.devices(start)}; processes: {formatting.value(start.get('processes'))}",
        ),
        ("seeds", ", ".join(seeds) or "none in the configuration"),
        ("command", tag("code", _command(start.get("command")))),
    ]
    changed = any("changes" in str(one.get("git")) for one in run.starts)
    return join(
        section(
            "To repeat this run",
            notice("The code had changes that are in no revision: they are needed too.")
            if changed
            else "",
            table((), facts),
            note("Revision, versions, devices, command: of the last start.")
            if len(run.starts) > 1
            else "",
            style="whole",
        ),
        section(
            "Configuration",
            table((), _beside(fields)) if fields else note("The configuration is empty."),
        ),
    )


def _beside(fields: list[tuple[str, Any]]) -> list[list[Any]]:
    """Fields with their values in columns beside each other, downwards first."""
    size = -(-len(fields) // COLUMNS)
    chunks = [fields[at : at + size] for at in range(0, len(fields), size)]
    return [
        [cell for field in row for cell in (tag("b", field[0]), formatting.exact(field[1]))]
        for row in zip_longest(*chunks, fillvalue=("", ""))
    ]


def starts(run: History) -> Markup:
    """Every time the run was started, and what was different from the time before."""
    if not run.starts:
        return section("Starts", note("No start was recorded."))
    rows = []
    for number, start in enumerate(run.starts):
        told = [_start_value(name, start.get(name)) for name in TOLD]
        changes = differences(run.starts[number - 1], start) if number else []
        verdict = tag("b", "; ".join(changes)) if changes else ("–" if number == 0 else "nothing")
        rows.append((*told, formatting.devices(start), verdict))
    head = ("after step", *TOLD[1:], "devices", "different from the start before")
    return section("Starts", table(head, rows))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What was not the same at two starts, in words."""
    old, new = (
        dict(flatten({name: value for name, value in start.items() if name not in APART}))
        for start in (before, now)
    )
    found = [
        f"{name.removeprefix('versions.')} {_short(old.get(name))} → {_short(new.get(name))}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
    commands = [_arguments(start.get("command")) for start in (before, now)]
    if commands[0] != commands[1]:
        first, second = commands
        told = [f"without {argument}" for argument in first if argument not in second]
        told += [f"with {argument}" for argument in second if argument not in first]
        found.append(f"command {', '.join(told) or 'in another order'}")
    return found


def _arguments(command: Any) -> list[str]:
    return list(map(str, command)) if isinstance(command, list) else []


def _start_value(name: str, value: Any) -> str:
    if name == "time":
        return formatting.time(value)
    return "not known" if value is None else _short(value)


def _short(value: Any) -> str:
    """A value, a revision by its first digits."""
    return REVISION.sub(r"\1", formatting.value(value))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _unit(run: History) -> str:
    return formatting.value(run.dataset.get("unit") or "unit not stated")


def _statistics(found: Any) -> str:
    """Mean and deviation of every band."""
    found = _mapping(found)
    mean, std = (formatting.value(found.get(name)) for name in ("mean", "std"))
    return f"mean {mean}; deviation {std}; statistics of {formatting.value(found.get('of'))}"


def _versions(versions: Mapping[str, Any]) -> str:
    told = [f"{name} {formatting.value(version)}" for name, version in versions.items() if version]
    return ", ".join(told) or "not known"


def _command(found: Any) -> str:
    """Arguments as a shell takes them."""
    if isinstance(found, list):
        return shlex.join(map(str, found))
    return formatting.value(found or "not known")
