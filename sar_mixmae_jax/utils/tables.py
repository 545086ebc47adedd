"""Formatting of numbers, confidence intervals and Markdown tables."""

import html
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sar_mixmae_jax.utils.errors import escape_unprintable

Lines = list[str]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]], text: int = 1) -> Lines:
    """Return the lines of a Markdown table.

    Args:
      head: titles of the columns.
      rows: cells, as many as titles in every row.
      text: number of leading columns that are aligned left; the others hold numbers and are
        aligned right.
    """
    rule = ["---" if number < text else "---:" for number in range(len(head))]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows)]


def escape_markdown(value: str) -> str:
    """Escape text for use inside a line of Markdown.

    Underscores between letters and digits, and "<" before a space, need no escape.
    """
    text = re.sub(r"&(?=[\w#])|<(?=\S)", lambda m: html.escape(m[0]), escape_unprintable(value))
    return re.sub(r"([\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", text)


def format_fraction(value: float) -> str:
    """Format a fraction as a percentage; NaN as a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def format_duration(seconds: float) -> str:
    """Format a duration in days, hours, minutes, seconds or milliseconds."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def format_numbers(values: Iterable[float]) -> str:
    """Format one value in dB for each band, separated by commas."""
    return ", ".join(f"{value:.4f}" for value in values)


UNDEFINED = "undefined"
NO_INTERVAL = "[-]"
MAX_NAMED_ROWS = 6
"""Number of rows that a note on missing intervals names; `metrics.json` has all reasons."""

Values = Mapping[str, Any]
MetricsRow = tuple[str, Values, Values]
"""Name, metrics by name, intervals by the name of the metric."""


def format_metric(value: float | None) -> str:
    """Format a metric with three decimals; None as "undefined"."""
    return UNDEFINED if value is None else f"{value:.3f}"


def format_interval(value: float | None, interval: Values | None) -> str:
    """Format a metric and its interval, as "0.713 [0.690, 0.735]".

    Args:
      value: None where undefined.
      interval: of `bootstrap.interval`; None: not computed.
    """
    if value is None or interval is None:
        return format_metric(value)
    if interval["low"] is None:
        return f"{format_metric(value)} {NO_INTERVAL}"
    return f"{format_metric(value)} [{interval['low']:.3f}, {interval['high']:.3f}]"


def metrics_table(
    head: str, rows: Sequence[MetricsRow], columns: Mapping[str, str], counts: Mapping[str, str]
) -> Lines:
    """Return a Markdown table of metrics with intervals, and notes on missing intervals.

    Args:
      head: title of the column of names.
      rows: name, metrics and intervals of each row.
      columns: metric name -> title, shown with intervals.
      counts: metric name -> title of whole numbers, which come first.
    """
    cells = [
        [
            escape_markdown(name),
            *(f"{values[count]:,}" for count in counts),
            *(format_interval(values[metric], intervals.get(metric)) for metric in columns),
        ]
        for name, values, intervals in rows
    ]
    return [
        *markdown_table((head, *counts.values(), *columns.values()), cells),
        *missing_interval_notes(rows, columns),
    ]


def missing_interval_notes(rows: Sequence[MetricsRow], columns: Mapping[str, str]) -> Lines:
    """Return one line for each reason for which intervals of a table are missing.

    Args:
      rows: of `metrics_table`.
      columns: of `metrics_table`.
    """
    reasons: dict[str, dict[str, list[str]]] = {}
    for name, values, intervals in rows:
        for metric, title in columns.items():
            interval = intervals.get(metric)
            if interval and interval["low"] is None and values[metric] is not None:
                reasons.setdefault(interval["reason"], {}).setdefault(name, []).append(title)
    if not reasons:
        return []
    head = f"{NO_INTERVAL} no interval"
    if len(reasons) == 1:
        return ["", f"{head}: {next(iter(reasons))}."]
    lines = [
        f"- {reason}: {escape_markdown(_join_rows(names))}" for reason, names in reasons.items()
    ]
    return ["", f"{head}:", "", *lines]


def _join_rows(titles_of_rows: Mapping[str, Sequence[str]]) -> str:
    """Join names of rows and the titles of their columns, rows with the same columns together."""
    rows_of_titles: dict[str, list[str]] = {}
    for name, titles in titles_of_rows.items():
        rows_of_titles.setdefault(", ".join(titles), []).append(name)
    parts = []
    for titles, names in rows_of_titles.items():
        hidden = len(names) - MAX_NAMED_ROWS
        more = f" and {hidden} more" if hidden > 0 else ""
        parts.append(f"{', '.join(names[:MAX_NAMED_ROWS])}{more} ({titles})")
    return "; ".join(parts)
