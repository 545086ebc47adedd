"""Numbers and tables in Markdown."""

import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from sar_mixmae_jax.utils.errors import escape_unprintable

Lines = list[str]


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[Any]], text: int = 1) -> Lines:
    """A Markdown table; the first `text` columns are text, the others numbers."""
    rule = ["---" if number < text else "---:" for number in range(len(head))]
    return [f"| {' | '.join(map(str, row))} |" for row in (head, rule, *rows)]


def escape_markdown(value: str) -> str:
    """A text of a dataset, so that it is nothing but text in Markdown and HTML."""
    text = html.escape(escape_unprintable(value), quote=False)
    return re.sub(r"([\\`*_{}\[\]()#!|])", r"\\\1", text)


def format_fraction(value: float) -> str:
    """A share as a percentage."""
    return "-" if math.isnan(value) else f"{100 * value:.2f} %"


def format_bytes(count: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            break
        count, unit = count / 1000, {"bytes": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"


def format_numbers(values: Iterable[float]) -> str:
    """Values in dB, one for each band."""
    return ", ".join(f"{value:.4f}" for value in values)
