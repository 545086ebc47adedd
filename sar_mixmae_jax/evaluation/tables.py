"""Values with their intervals in Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from sar_mixmae_jax.utils.tables import Lines, escape_markdown, markdown_table

UNDEFINED = "undefined"
NO_INTERVAL = "[-]"
Values = Mapping[str, Any]
MOST_NAMED = 6
"""Rows that a reason names; `metrics.json` has the reason of every value."""

Row = tuple[str, Values, Values]
"""Name, metrics, intervals of the metrics."""


def number(value: float | None) -> str:
    """Three digits, or that the value is undefined."""
    return UNDEFINED if value is None else f"{value:.3f}"


def with_interval(value: float | None, interval: Values | None) -> str:
    """A value and its interval, as "0.713 [0.690, 0.735]"."""
    if value is None or interval is None:
        return number(value)
    if interval["low"] is None:
        return f"{number(value)} {NO_INTERVAL}"
    return f"{number(value)} [{interval['low']:.3f}, {interval['high']:.3f}]"


def metrics_table(
    head: str, rows: Sequence[Row], columns: Mapping[str, str], counts: Mapping[str, str]
) -> Lines:
    """A table with a row for each of several dicts of metrics, and why intervals are missing.

    Args:
      head: of the column of names.
      rows: name, metrics and intervals of each.
      columns: title by name of the metric, shown with intervals.
      counts: title by name of what is shown as a whole number, in front of them.
    """
    cells = [
        [
            escape_markdown(name),
            *(f"{values[count]:,}" for count in counts),
            *(with_interval(values[metric], intervals.get(metric)) for metric in columns),
        ]
        for name, values, intervals in rows
    ]
    return [
        *markdown_table((head, *counts.values(), *columns.values()), cells),
        *missing_intervals(rows, columns),
    ]


def missing_intervals(rows: Sequence[Row], columns: Mapping[str, str]) -> Lines:
    """One short line for every reason for which intervals of a table are missing.

    Args:
      rows: of `metrics_table`.
      columns: of `metrics_table`.
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    for name, values, intervals in rows:
        for metric, title in columns.items():
            found = intervals.get(metric)
            if found and found["low"] is None and values[metric] is not None:
                reasons.setdefault(found["reason"], {}).setdefault(name, []).append(title)
    if not reasons:
        return []
    head = f"{NO_INTERVAL} no interval"
    if len(reasons) == 1:
        return ["", f"{head}: {next(iter(reasons))}."]
    lines = [f"- {reason}: {escape_markdown(_where(names))}" for reason, names in reasons.items()]
    return ["", f"{head}:", "", *lines]


def _where(names: Mapping[str, Sequence[str]]) -> str:
    """Rows with the columns in which they lack an interval, those of the same columns together."""
    together: dict[str, list[str]] = {}
    for name, titles in names.items():
        together.setdefault(", ".join(titles), []).append(name)
    parts = []
    for titles, every in together.items():
        more = f" and {len(every) - MOST_NAMED} more" if len(every) > MOST_NAMED else ""
        parts.append(f"{', '.join(every[:MOST_NAMED])}{more} ({titles})")
    return "; ".join(parts)
