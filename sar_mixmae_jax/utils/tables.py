"""Formatting of numbers and Markdown tables."""

import html
import math
import re
from collections.abc import Iterable, Sequence
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
    """Escape a string from a file, so that Markdown and HTML show it literally."""
    text = html.escape(escape_unprintable(value), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#!|])", r"\\\1", text)


def format_fraction(value: float) -> str:
    """Format a fraction as a percentage; NaN as a dash."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def format_bytes(count: float) -> str:
    """Format a number of bytes with a decimal unit, from bytes to TB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def format_duration(seconds: float) -> str:
    """Format a duration in days, hours, minutes, seconds or milliseconds."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def format_numbers(values: Iterable[float]) -> str:
    """Format one value in dB for each band, separated by commas."""
    return ", ".join(f"{value:.4f}" for value in values)
